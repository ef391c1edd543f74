/* What differs between the LLVM versions Nibble builds with (19 and newer); nothing else in
 * codegen/ asks for a version. */
#ifndef NB_LLVM_COMPAT_H
#define NB_LLVM_COMPAT_H

#include <llvm/Config/llvm-config.h>

#if LLVM_VERSION_MAJOR < 19
#error "Nibble needs LLVM 19 or newer"
#endif

/* Up to 21, masked loads and stores take their alignment as an i32 argument behind the pointer;
 * later it is an attribute of the pointer. */
#define NB_LLVM_MASKED_ALIGN_ARGUMENT (LLVM_VERSION_MAJOR < 22)

#endif
