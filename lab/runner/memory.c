/*
 * The calls that a scenario makes on memory and files.
 *
 * Contract: each gets the words after the operation's name and makes just the calls that the entry asks for, so that
 * nothing else of it is in the trace; it returns 0 or a negative errno. Files lie in the current directory.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tlbw.h"

/* Advice that older C libraries do not name (include/uapi/asm-generic/mman-common.h). */
#ifndef MADV_COLD
#define MADV_COLD 20
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

enum { PAGE = 4096 };

/* Regions share no page table below the highest level with each other. */
static const uintptr_t REGIONS = 0x100000000000, REGION_BYTES = 1UL << 32;

struct choice {
	const char *name;
	int value;
};

static int choose(const struct choice *choices, const char *name)
{
	for (; choices->name; choices++)
		if (!strcmp(choices->name, name))
			return choices->value;
	die("unknown word %s", name);
}

static const struct choice PROTECTIONS[] = {
	{ "none", PROT_NONE },
	{ "r", PROT_READ },
	{ "rw", PROT_READ | PROT_WRITE },
	{ "rx", PROT_READ | PROT_EXEC },
	{ "rwx", PROT_READ | PROT_WRITE | PROT_EXEC },
	{ NULL, 0 },
};

static const struct choice ADVICE[] = {
	{ "dontneed", MADV_DONTNEED },
	{ "free", MADV_FREE },
	{ "remove", MADV_REMOVE },
	{ "dontfork", MADV_DONTFORK },
	{ "hugepage", MADV_HUGEPAGE },
	{ "nohugepage", MADV_NOHUGEPAGE },
	{ "cold", MADV_COLD },
	{ "pageout", MADV_PAGEOUT },
	{ "populate", MADV_POPULATE_WRITE },
	{ "collapse", MADV_COLLAPSE },
	{ NULL, 0 },
};

static size_t bytes(const char *pages)
{
	return number(pages) * PAGE;
}

/* Two words: a region and a page of it. */
static char *address(char **word)
{
	return (char *)(REGIONS + (word[0][0] - 'A') * REGION_BYTES + bytes(word[1]));
}

static long do_mmap(char **word)
{
	const char *backing = word[4], *name = strchr(backing, ':');
	int flags = MAP_FIXED | (!strncmp(backing, "s", 1) ? MAP_SHARED : MAP_PRIVATE), fd = -1;

	if (!name)
		flags |= MAP_ANONYMOUS;
	else if ((fd = open(name + 1, O_RDWR)) < 0)
		return -errno;
	void *mapped = mmap(address(word), bytes(word[2]), choose(PROTECTIONS, word[3]), flags, fd,
			    word[5] ? bytes(word[5]) : 0);
	long result = mapped == MAP_FAILED ? -errno : 0;
	if (fd >= 0)
		close(fd);
	return result;
}

static long do_touch(char **word)
{
	volatile char *start = address(word);
	size_t nr_pages = number(word[2]), stride = word[4] ? number(word[4]) : 1;

	for (size_t page = 0; page < nr_pages; page += stride) {
		if (word[3][0] == 'w')
			start[page * PAGE] = (char)(page + 1);
		else
			(void)start[page * PAGE];
	}
	return 0;
}

static long do_munmap(char **word)
{
	return result_of(munmap(address(word), bytes(word[2])));
}

static long do_mprotect(char **word)
{
	return result_of(mprotect(address(word), bytes(word[2]), choose(PROTECTIONS, word[3])));
}

static long do_madvise(char **word)
{
	return result_of(madvise(address(word), bytes(word[2]), choose(ADVICE, word[3])));
}

static long do_mremap(char **word)
{
	size_t new_bytes = bytes(word[5] ? word[5] : word[2]);

	return result_of((long)mremap(address(word), bytes(word[2]), new_bytes, MREMAP_MAYMOVE | MREMAP_FIXED,
				      address(word + 3)));
}

static long do_mresize(char **word)
{
	return result_of((long)mremap(address(word), bytes(word[2]), bytes(word[3]), 0));
}

static long do_msync(char **word)
{
	return result_of(msync(address(word), bytes(word[2]), MS_SYNC));
}

static long do_mkfile(char **word)
{
	static char page[PAGE];
	size_t nr_pages = number(word[1]);
	long result = 0;
	int fd = open(word[0], O_RDWR | O_CREAT, 0600);

	if (fd < 0)
		return -errno;
	memset(page, 7, sizeof(page));
	for (size_t i = 0; i < nr_pages && !result; i++)
		if (write(fd, page, sizeof(page)) != (ssize_t)sizeof(page))
			result = -EIO;
	/* Clean pages: what is dirty later was made so by the scenario. */
	if (!result)
		result = result_of(fsync(fd));
	close(fd);
	return result;
}

/* Opens the file of the first word, as every operation on files does, and closes it. */
static long with_file(char **word, long (*run)(int fd, char **word))
{
	int fd = open(word[0], O_RDWR);
	if (fd < 0)
		return -errno;
	long result = run(fd, word);
	close(fd);
	return result;
}

static long sync_file(int fd, char **word)
{
	(void)word;
	return result_of(fsync(fd));
}

static long cut_file(int fd, char **word)
{
	return result_of(ftruncate(fd, bytes(word[1])));
}

static long punch_file(int fd, char **word)
{
	return result_of(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, bytes(word[1]), bytes(word[2])));
}

static long do_fsync(char **word)
{
	return with_file(word, sync_file);
}

static long do_ftrunc(char **word)
{
	return with_file(word, cut_file);
}

static long do_fpunch(char **word)
{
	return with_file(word, punch_file);
}

static long write_to(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	if (fd < 0)
		return -errno;
	long result = result_of(write(fd, text, strlen(text)) < 0 ? -1 : 0);
	close(fd);
	return result;
}

static long do_clearrefs(char **word)
{
	return write_to("/proc/self/clear_refs", word[0]);
}

static long do_creclaim(char **word)
{
	char text[32];

	snprintf(text, sizeof(text), "%zu", bytes(word[0]));
	return write_to("/sys/fs/cgroup/lab/memory.reclaim", text);
}

static const struct {
	const char *name;
	long (*run)(char **word);
} OPERATIONS[] = {
	{ "mmap", do_mmap },
	{ "touch", do_touch },
	{ "munmap", do_munmap },
	{ "mprotect", do_mprotect },
	{ "madvise", do_madvise },
	{ "mremap", do_mremap },
	{ "mresize", do_mresize },
	{ "msync", do_msync },
	{ "mkfile", do_mkfile },
	{ "fsync", do_fsync },
	{ "ftrunc", do_ftrunc },
	{ "fpunch", do_fpunch },
	{ "clearrefs", do_clearrefs },
	{ "creclaim", do_creclaim },
};

bool memory_operation(const char *name, char **word, long *result)
{
	for (size_t i = 0; i < sizeof(OPERATIONS) / sizeof(*OPERATIONS); i++)
		if (!strcmp(OPERATIONS[i].name, name)) {
			*result = OPERATIONS[i].run(word);
			return true;
		}
	return false;
}
