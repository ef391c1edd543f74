/* Finds large optional test inputs (models, texts) that are not part of the repository. */
#ifndef NB_TEST_DATA_H
#define NB_TEST_DATA_H

/* The full path of `path` in the data directory, or NULL when it is not there: the test then says
 * that it skips. The directory is $NIBBLE_DATA, or shared/data beside the repository. The caller
 * frees the result. */
char *nb_test_data(const char *path);

#endif
