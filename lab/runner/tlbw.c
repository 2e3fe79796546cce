/*
 * Runs one scenario inside the guest: tlbw SCENARIO MARKER_FILE DIRECTORY
 *
 * Contract: the steps run strictly one after the other, the entries of a step at the same time, each by its own thread
 * on the CPU that the scenario says. While others act, an actor waits as the scenario says: spinning in user mode, so
 * that its CPU keeps running the address space, or asleep, so that its CPU goes idle. The trace shows where an entry
 * begins and ends by markers:
 *
 *     A ACTOR tid=N pid=N cpu=N       an actor starts
 *     B STEP ACTOR ITERATION TEXT     an entry begins
 *     E STEP ACTOR ITERATION rc=N     and ends; N is 0 or a negative errno
 *     END                             all steps are done
 *
 * Between two markers the runner does nothing to memory but what the entry asks for; its own stacks and data lie
 * outside of all regions, so that what they cause can be told apart. The language is checked before the guest boots
 * (lab/scenario.py); here a mistake only has to stop the run.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tlbw.h"

enum {
	MAX_STEPS = 4000,
	MAX_ENTRIES = 8,
	MAX_ACTORS = 40,
	MAX_WORDS = 8,
	MARKER_FD = 3,		/* the converter leaves writes to it out */
};

/* Above all regions, so that it shares no page table with them below the highest level. */
static const uintptr_t BOARD = 0x200000000000;

struct entry {
	int actor, repetitions;
	char *word[MAX_WORDS + 1];	/* operation and arguments, then NULL */
	char *text;
};

struct step {
	int nr_entries;
	struct entry entry[MAX_ENTRIES];
};

enum mode { SPIN, SLEEP };

/* What the actors of all processes know of each other, in shared memory. */
struct board {
	volatile int turn;			/* the step that runs */
	volatile int nr_open[MAX_STEPS];	/* entries of a step that are not done */
	volatile int finisher;			/* who ended the step before, -1 at first */
	struct {
		volatile int called;		/* futex: the latest step it was woken for */
		volatile int mode, tid, pid, ready, gone;
	} actor[MAX_ACTORS];
};

static struct step steps[MAX_STEPS];
static int nr_steps, nr_actors;
static char *actor_names[MAX_ACTORS];
static struct board *board;

static void act_from(int self, int step);

void die(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	exit(2);
}

static void mark(const char *format, ...)
{
	char line[256];
	va_list arguments;

	va_start(arguments, format);
	int length = vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	if (length >= (int)sizeof(line))
		length = sizeof(line) - 1;
	/* A marker that is lost shows: the converter misses the entry. */
	if (write(MARKER_FD, line, length) < 0)
		return;
}

static void relax(void)
{
	__builtin_ia32_pause();
}

static void relax_for(uint64_t cycles)
{
	for (uint64_t begin = __builtin_ia32_rdtsc(); __builtin_ia32_rdtsc() - begin < cycles;)
		relax();
}

static enum mode mode_of(const char *word)
{
	return strcmp(word, "sleep") ? SPIN : SLEEP;
}

static int actor_of(const char *name)
{
	for (int actor = 0; actor < nr_actors; actor++)
		if (!strcmp(actor_names[actor], name))
			return actor;
	if (nr_actors == MAX_ACTORS)
		die("more than %d actors", MAX_ACTORS);
	actor_names[nr_actors] = strdup(name);
	return nr_actors++;
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		mark("X cpu %d: errno=%d", cpu, errno);
}

/*
 * Taking turns.
 */

/*
 * Returns when the actor sleeps and its CPU had time to go idle: what the next entry finds (is that CPU lazy, is it in
 * the mask?) must not hang on how fast the emulator is.
 */
static void await_asleep(int actor)
{
	char path[64], line[256];

	if (board->actor[actor].gone)
		return;
	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", board->actor[actor].pid, board->actor[actor].tid);
	for (int tries = 0; tries < 2000; tries++) {
		int fd = open(path, O_RDONLY);
		if (fd < 0)
			return;
		ssize_t length = read(fd, line, sizeof(line) - 1);
		close(fd);
		if (length <= 0)
			return;
		line[length] = 0;
		/* "PID (COMM) STATE": the name may hold anything but ends with the last parenthesis. */
		char *end = strrchr(line, ')');
		if (!end || end[2] != 'R')
			break;
		relax_for(200000);
	}
	relax_for(3000000);
}

static void await_turn(int self, int step)
{
	volatile int *called = &board->actor[self].called;

	if (board->actor[self].mode == SPIN) {
		while (board->turn < step)
			relax();
		return;
	}
	for (int seen = *called; seen < step && board->turn < step; seen = *called)
		syscall(SYS_futex, called, FUTEX_WAIT, seen, NULL, NULL, 0);
}

static void end_turn(int self, int step)
{
	if (__atomic_sub_fetch(&board->nr_open[step], 1, __ATOMIC_SEQ_CST))
		return;
	board->finisher = self;
	__atomic_store_n(&board->turn, step + 1, __ATOMIC_SEQ_CST);
	if (step + 1 == nr_steps)
		return;
	for (int i = 0; i < steps[step + 1].nr_entries; i++) {
		int next = steps[step + 1].entry[i].actor;

		board->actor[next].called = step + 1;
		if (next != self && board->actor[next].mode == SLEEP)
			syscall(SYS_futex, &board->actor[next].called, FUTEX_WAKE, 1, NULL, NULL, 0);
	}
}

static void appear(int self, int cpu)
{
	pin(cpu);
	board->actor[self].tid = syscall(SYS_gettid);
	board->actor[self].pid = getpid();
	mark("A %s tid=%d pid=%d cpu=%d", actor_names[self], board->actor[self].tid, getpid(), cpu);
	board->actor[self].ready = 1;
}

/*
 * Operations: they get who asks in which step, and the words after their name; they return 0 or a negative errno.
 */

struct turn {
	int self, step, iteration;
};

struct birth {
	int actor, step, cpu;
};

static void *thread_main(void *argument)
{
	struct birth birth = *(struct birth *)argument;

	appear(birth.actor, birth.cpu);
	act_from(birth.actor, birth.step);
	return NULL;
}

static void announce(int actor, const char *mode)
{
	/* A name may be used again by a later process. */
	board->actor[actor].ready = board->actor[actor].gone = 0;
	board->actor[actor].mode = mode_of(mode);
}

static void await_birth(int actor)
{
	while (!board->actor[actor].ready)
		relax();
	if (board->actor[actor].mode == SLEEP)
		await_asleep(actor);
}

static long do_thread(struct turn turn, char **word)
{
	/* Read before await_birth() returns, so one place serves all threads of a process. */
	static struct birth birth;
	pthread_t thread;

	birth = (struct birth){ actor_of(word[0]), turn.step + 1, number(word[1]) };
	announce(birth.actor, word[2]);
	int error = pthread_create(&thread, NULL, thread_main, &birth);
	if (error)
		return -error;
	await_birth(birth.actor);
	return 0;
}

static long do_fork(struct turn turn, char **word)
{
	int child = actor_of(word[0]);

	announce(child, word[2]);
	pid_t pid = fork();
	if (pid < 0)
		return -errno;
	if (!pid) {
		appear(child, number(word[1]));
		act_from(child, turn.step + 1);
		_exit(0);
	}
	board->actor[child].pid = pid;
	await_birth(child);
	return 0;
}

static long do_exit(struct turn turn, char **word)
{
	(void)word;
	/* Nobody is left to do it afterwards. */
	board->actor[turn.self].gone = 1;
	mark("E %d %s %d rc=0", turn.step, actor_names[turn.self], turn.iteration);
	end_turn(turn.self, turn.step);
	_exit(0);
}

static long do_wait(struct turn turn, char **word)
{
	(void)turn;
	return result_of(waitpid(board->actor[actor_of(word[0])].pid, NULL, 0));
}

static long do_mode(struct turn turn, char **word)
{
	board->actor[turn.self].mode = mode_of(word[0]);
	return 0;
}

static long do_cpu(struct turn turn, char **word)
{
	(void)turn;
	pin(number(word[0]));
	return 0;
}

static long do_getpid(struct turn turn, char **word)
{
	(void)turn, (void)word;
	return syscall(SYS_getpid) > 0 ? 0 : -EINVAL;
}

static long do_nop(struct turn turn, char **word)
{
	(void)turn, (void)word;
	return 0;
}

static long do_nap(struct turn turn, char **word)
{
	unsigned long milliseconds = number(word[0]);
	struct timespec time = { milliseconds / 1000, milliseconds % 1000 * 1000000 };

	(void)turn;
	return result_of(nanosleep(&time, NULL));
}

static const struct operation {
	const char *name;
	long (*run)(struct turn turn, char **word);
} OPERATIONS[] = {
	{ "thread", do_thread }, { "fork", do_fork },	  { "exit", do_exit }, { "wait", do_wait }, { "mode", do_mode },
	{ "cpu", do_cpu },	 { "getpid", do_getpid }, { "nop", do_nop },   { "nap", do_nap },
};

static long run(struct turn turn, struct entry *entry)
{
	for (size_t i = 0; i < sizeof(OPERATIONS) / sizeof(*OPERATIONS); i++)
		if (!strcmp(OPERATIONS[i].name, entry->word[0]))
			return OPERATIONS[i].run(turn, entry->word + 1);
	long result;
	if (!memory_operation(entry->word[0], entry->word + 1, &result))
		die("unknown operation %s", entry->word[0]);
	return result;
}

static struct entry *entry_of(int self, int step)
{
	for (int i = 0; i < steps[step].nr_entries; i++)
		if (steps[step].entry[i].actor == self)
			return &steps[step].entry[i];
	return NULL;
}

static void act_from(int self, int first)
{
	for (int step = first; step < nr_steps; step++) {
		struct entry *entry = entry_of(self, step);
		if (!entry)
			continue;
		await_turn(self, step);
		int before = board->finisher;
		if (before >= 0 && before != self && board->actor[before].mode == SLEEP)
			await_asleep(before);
		for (int i = 0; i < entry->repetitions; i++) {
			mark("B %d %s %d %s", step, actor_names[self], i, entry->text);
			long result = run((struct turn){ self, step, i }, entry);
			mark("E %d %s %d rc=%ld", step, actor_names[self], i, result);
		}
		end_turn(self, step);
	}
	if (self == 0)
		return;
	/* Out of steps: wait on in the same way, so that its CPU stays what it was, until all is done. */
	for (;;) {
		if (board->turn == nr_steps && board->actor[self].pid != board->actor[0].pid)
			return;
		if (board->actor[self].mode == SPIN && board->turn < nr_steps)
			relax();
		else
			syscall(SYS_pause);
	}
}

/*
 * Reading the scenario.
 */

static void read_entry(struct entry *entry, char *part)
{
	char *state, *word = strtok_r(part, " \t", &state), text[256] = "";
	int nr_words = 0;

	if (!word)
		die("an entry without an actor");
	entry->actor = actor_of(word);
	entry->repetitions = 1;
	while ((word = strtok_r(NULL, " \t", &state))) {
		if (!nr_words && !strcmp(word, "rep")) {
			word = strtok_r(NULL, " \t", &state);
			entry->repetitions = word ? number(word) : 0;
			continue;
		}
		if (nr_words == MAX_WORDS || strlen(text) + strlen(word) + 2 > sizeof(text))
			die("an entry that is too long");
		entry->word[nr_words++] = strdup(word);
		if (text[0])
			strcat(text, " ");
		strcat(text, word);
	}
	if (!nr_words)
		die("an entry without an operation");
	entry->text = strdup(text);
	/* Named now, not when it starts: processes that part ways later must agree on everybody's number. */
	if (nr_words > 1 && (!strcmp(entry->word[0], "thread") || !strcmp(entry->word[0], "fork")))
		actor_of(entry->word[1]);
}

static void read_scenario(const char *path)
{
	char line[2048];
	FILE *file = fopen(path, "r");

	if (!file)
		die("%s: %s", path, strerror(errno));
	while (fgets(line, sizeof(line), file)) {
		line[strcspn(line, "#\r\n")] = 0;
		if (!line[strspn(line, " \t")])
			continue;
		if (nr_steps == MAX_STEPS)
			die("more than %d steps", MAX_STEPS);
		struct step *step = &steps[nr_steps];
		char *state;
		for (char *part = strtok_r(line, "|", &state); part; part = strtok_r(NULL, "|", &state)) {
			if (step->nr_entries == MAX_ENTRIES)
				die("more than %d entries in a step", MAX_ENTRIES);
			read_entry(&step->entry[step->nr_entries++], part);
		}
		board->nr_open[nr_steps++] = step->nr_entries;
	}
	fclose(file);
}

int main(int argc, char **argv)
{
	if (argc != 4)
		die("usage: tlbw SCENARIO MARKER_FILE DIRECTORY");
	int fd = open(argv[2], O_WRONLY);
	if (fd < 0)
		die("%s: %s", argv[2], strerror(errno));
	if (fd != MARKER_FD && (dup2(fd, MARKER_FD) < 0 || close(fd)))
		die("file descriptor %d: %s", MARKER_FD, strerror(errno));
	/* The trace is filtered by this name, which threads and children inherit. */
	prctl(PR_SET_NAME, "tlbw");
	board = mmap((void *)BOARD, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (board == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	/* Touched in full, so that no page of it is faulted in during an entry. */
	memset(board, 0, sizeof(*board));
	board->finisher = -1;
	actor_of("T0");
	read_scenario(argv[1]);
	if (chdir(argv[3]))
		die("%s: %s", argv[3], strerror(errno));
	appear(0, 0);
	act_from(0, 0);
	while (board->turn < nr_steps)
		relax();
	mark("END");
	_exit(0);
}
