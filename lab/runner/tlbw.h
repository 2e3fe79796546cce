/*
 * What the two parts of the runner share: tlbw.c (turns, threads, processes) and memory.c (calls of the scenario).
 */
#ifndef TLBW_H
#define TLBW_H

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

/* Ends the run with a message: the scenario was checked before, so this is a disagreement between runner and checker. */
_Noreturn void die(const char *format, ...);

/* Runs an operation on memory or files, given the words after its name; false if there is none of that name. */
bool memory_operation(const char *name, char **word, long *result);

/* Of a system call: 0, or a negative errno. */
static inline long result_of(long returned)
{
	return returned == -1 ? -errno : 0;
}

static inline unsigned long number(const char *word)
{
	return strtoul(word, NULL, 10);
}

#endif
