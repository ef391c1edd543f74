/* Child processes of `nibble reduce`, and the test that is a command (reduce.h).
 *
 * The command is run by /bin/sh with the candidate's path in place of each {}, or behind it. What
 * it does on the whole model is what "fails" means: a candidate fails when the command ends in the
 * same way: with the same exit code, by the same signal, or by running out of time. So a candidate
 * that is refused for another reason is not taken for the fault. 0 is success; 125 says, as for
 * `git bisect run`, that nothing can be said. */
#include "ir/support/output.h"
#include "ir/text.h"
#include "lib/timing.h"
#include "tools/reduce.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- children ------------------------------------------------------------------------------- */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal) {
    (void)signal;
    interrupted = 1;
}

bool nbt_is_interrupted(void) { return interrupted != 0; }

void nbt_catch_interrupts(void) {
    struct sigaction action = {.sa_handler = on_interrupt};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

static void become_child(void (*work)(void *user), void *user) {
    struct sigaction usual = {.sa_handler = SIG_DFL};
    setpgid(0, 0);
    sigaction(SIGINT, &usual, NULL);
    sigaction(SIGTERM, &usual, NULL);
    sigaction(SIGHUP, &usual, NULL);
    work(user);
    _exit(0);
}

nbt_end_of_run nbt_run_child(void (*work)(void *user), void *user, double timeout) {
    nbt_end_of_run end = {.status = -1};
    const double start = nbl_now();
    fflush(NULL);
    const pid_t child = fork();
    if (child < 0) return end;
    if (child == 0) become_child(work, user);
    setpgid(child, child); /* both do it: whoever comes first */
    for (long pause = 200000; waitpid(child, &end.status, WNOHANG) == 0;) {
        const struct timespec nap = {.tv_nsec = pause};
        end.interrupted = nbt_is_interrupted();
        end.timed_out = timeout > 0 && nbl_now() - start > timeout;
        if (end.interrupted || end.timed_out) {
            kill(-child, SIGKILL);
            waitpid(child, &end.status, 0);
            break;
        }
        nanosleep(&nap, NULL);
        if (pause < 10000000) pause += pause / 4;
    }
    kill(-child, SIGKILL); /* what it left running */
    end.seconds = nbl_now() - start;
    return end;
}

/* ---- the command ---------------------------------------------------------------------------- */

enum { CANNOT_TELL = 125 };

typedef struct command_test {
    nbt_test test;
    nbt_args *args;
    nb_arena *arena;
    const char *line, *folder, *path; /* as sh gets it; where candidates are; the candidate */
    nbt_end_of_run whole;             /* of the whole model */
} command_test;

/* In quotes for sh. */
static const char *quoted(nb_arena *arena, const char *text) {
    char *out = nb_alloc(arena, 4 * strlen(text) + 3), *at = out;
    *at++ = '\'';
    for (; *text; text++) {
        if (*text == '\'')
            at += sprintf(at, "'\\''");
        else
            *at++ = *text;
    }
    *at = '\'';
    return out;
}

static const char *command_line(nb_arena *arena, const char *command, const char *path) {
    const char *name = quoted(arena, path), *line = "", *brace = strstr(command, "{}");
    if (!brace) return nb_format(arena, "%s %s", command, name);
    for (; brace; command = brace + 2, brace = strstr(command, "{}"))
        line = nb_format(arena, "%s%.*s%s", line, (int)(brace - command), command, name);
    return nb_format(arena, "%s%s", line, command);
}

static void run_command(void *user) {
    const command_test *t = user;
    const bool loud = nbt_has(t->args, "verbose");
    const int nothing = open("/dev/null", O_RDWR);
    if (nothing >= 0) {
        dup2(nothing, STDIN_FILENO);
        dup2(loud ? STDERR_FILENO : nothing, STDOUT_FILENO);
        if (!loud) dup2(nothing, STDERR_FILENO);
    }
    execl("/bin/sh", "sh", "-c", t->line, (char *)NULL);
    _exit(CANNOT_TELL);
}

static bool is_failure(const nbt_end_of_run *e) {
    if (e->interrupted || e->status == -1) return false;
    if (e->timed_out || WIFSIGNALED(e->status)) return true;
    return WIFEXITED(e->status) && WEXITSTATUS(e->status) != 0 &&
           WEXITSTATUS(e->status) != CANNOT_TELL;
}

static bool write_candidate(const command_test *t, const nb_graph *g) {
    const nb_print_options all = {0};
    FILE *f = fopen(t->path, "wb");
    if (!f) return false;
    nb_print(g, &all, f);
    const bool written = !ferror(f);
    return fclose(f) == 0 && written;
}

static bool command_fails(nbt_test *test, const nb_graph *g, const nbt_samples *samples) {
    command_test *t = (command_test *)test;
    (void)samples;
    if (!write_candidate(t, g)) return false;
    const nbt_end_of_run end = nbt_run_child(run_command, t, test->timeout);
    return is_failure(&end) && end.timed_out == t->whole.timed_out &&
           (end.timed_out || end.status == t->whole.status);
}

static const char *verdict_of(nb_arena *arena, const nbt_end_of_run *e) {
    if (e->timed_out) return "the command runs out of time";
    if (WIFSIGNALED(e->status))
        return nb_format(arena, "the command ends by signal %d (%s)", WTERMSIG(e->status),
                         strsignal(WTERMSIG(e->status)));
    return nb_format(arena, "the command exits with %d", WEXITSTATUS(e->status));
}

static nb_status not_failing(command_test *t) {
    const nb_where where = {.file = nbt_get(t->args, "test"), .offset = -1};
    nb_diags *diags = t->args->diags;
    if (t->whole.interrupted) return nb_error(diags, NB_CHECK_FAILED, where, "interrupted");
    if (t->whole.status == -1)
        return nb_error(diags, NB_IO, where, "the command cannot be run: %s", strerror(errno));
    nb_error(diags, NB_CHECK_FAILED, where, "%s: that is no failure to keep",
             verdict_of(t->arena, &t->whole));
    nb_help(diags,
            "it gets a .nir file in place of {} or as its last argument; exit codes but 0 "
            "and %d, signals and time-outs are failures; --verbose shows what it prints",
            CANNOT_TELL);
    return NB_CHECK_FAILED;
}

nb_status nbt_command_test(nbt_args *args, const nb_graph *whole, nbt_test **out) {
    command_test *t = NB_NEW(args->arena, command_test);
    const char *temporary = getenv("TMPDIR");
    char *folder = nb_format(args->arena, "%s/nibble-reduce-XXXXXX",
                             temporary && *temporary ? temporary : "/tmp");
    *t = (command_test){.test = {.fails = command_fails, .moves_outputs = true},
                        .args = args,
                        .arena = args->arena};
    NB_TRY(nbt_number(args, "timeout", 0.001, 1e9, &t->test.timeout));
    if (!mkdtemp(folder)) return nb_io_error(args->diags, folder, "make the folder");
    *out = &t->test;
    t->folder = folder;
    t->path = nb_format(args->arena, "%s/candidate.nir", folder);
    t->line = command_line(args->arena, nbt_get(args, "test"), t->path);
    if (!write_candidate(t, whole)) return nb_io_error(args->diags, t->path, "write");
    t->whole = nbt_run_child(run_command, t, t->test.timeout);
    if (!is_failure(&t->whole)) return not_failing(t);
    t->test.verdict = verdict_of(args->arena, &t->whole);
    if (t->test.timeout == 0) t->test.timeout = nbt_time_to_wait(t->whole.seconds);
    return NB_OK;
}

void nbt_command_test_end(nbt_test *test) {
    if (!test || test->fails != command_fails) return;
    const command_test *t = (const command_test *)test;
    unlink(t->path);
    rmdir(t->folder);
}

double nbt_time_to_wait(double seconds) { return fmax(10, 10 * seconds); }
