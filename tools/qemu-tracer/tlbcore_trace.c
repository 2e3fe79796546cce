// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * A plugin for QEMU's user mode that writes down the virtual address of every load and store of a program:
 *
 *	qemu-x86_64 -plugin ./libtlbcore_trace.so,out=prog,skip=N,count=N ./prog ...
 *
 * Each thread (vCPU) writes a file of its own, OUT.VCPU.u64: little-endian words of 64 bits, in the order of the accesses,
 * which `tlbcore tlb` reads as they are. `skip` accesses of each vCPU are not written, then at most `count` are.
 *
 * An atomic read-modify-write is a load and a store here. Accesses of system calls on behalf of the program, and those
 * that helpers make without telling, are not seen. Addresses are those of the guest; QEMU maps it where it likes.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <qemu-plugin.h>

#define MAX_VCPUS 1024
#define BUFFER_WORDS (1u << 15)

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

struct trace {
	uint64_t to_skip;
	uint64_t to_write;
	uint64_t nr_written;
	size_t nr_buffered;
	FILE *file;
	bool failed;
	uint64_t buffer[BUFFER_WORDS];
};

static const char *out = "trace";
static uint64_t skip;
static uint64_t count = UINT64_MAX;

/* Allocated when a vCPU starts, used by its own thread only. */
static struct trace *traces[MAX_VCPUS];

static void flush(struct trace *trace)
{
	if (!trace->failed && fwrite(trace->buffer, sizeof(uint64_t), trace->nr_buffered, trace->file) != trace->nr_buffered) {
		perror("tlbcore_trace: write");
		trace->failed = true;
	}
	trace->nr_buffered = 0;
}

static void on_access(unsigned int vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
	struct trace *trace;

	(void)info;
	(void)data;
	if (vcpu >= MAX_VCPUS || !(trace = traces[vcpu]))
		return;
	if (trace->to_skip) {
		trace->to_skip--;
		return;
	}
	if (!trace->to_write)
		return;
	trace->to_write--;
	trace->nr_written++;
	trace->buffer[trace->nr_buffered++] = address;
	if (trace->nr_buffered == BUFFER_WORDS)
		flush(trace);
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
	(void)id;
	for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); i++)
		qemu_plugin_register_vcpu_mem_cb(qemu_plugin_tb_get_insn(block, i), on_access, QEMU_PLUGIN_CB_NO_REGS,
						 QEMU_PLUGIN_MEM_RW, NULL);
}

static void on_vcpu(qemu_plugin_id_t id, unsigned int vcpu)
{
	char path[4096];
	struct trace *trace;

	(void)id;
	if (vcpu >= MAX_VCPUS) {
		fprintf(stderr, "tlbcore_trace: vCPU %u is not traced, at most %d are\n", vcpu, MAX_VCPUS);
		return;
	}
	if (traces[vcpu]) /* the number of a thread that ended, used again */
		return;
	snprintf(path, sizeof(path), "%s.%u.u64", out, vcpu);
	trace = calloc(1, sizeof(*trace));
	if (!trace || !(trace->file = fopen(path, "wb"))) {
		perror(path);
		exit(1);
	}
	trace->to_skip = skip;
	trace->to_write = count;
	traces[vcpu] = trace;
}

static void on_end(qemu_plugin_id_t id, void *data)
{
	(void)id;
	(void)data;
	for (unsigned int vcpu = 0; vcpu < MAX_VCPUS; vcpu++) {
		struct trace *trace = traces[vcpu];

		if (!trace)
			continue;
		flush(trace);
		if (fclose(trace->file))
			perror("tlbcore_trace: close");
		fprintf(stderr, "tlbcore_trace: %s.%u.u64: %" PRIu64 " accesses\n", out, vcpu, trace->nr_written);
	}
}

static bool number(const char *text, const char *name, uint64_t *value)
{
	char *end;
	size_t len = strlen(name);

	if (strncmp(text, name, len) || text[len] != '=')
		return false;
	*value = strtoull(text + len + 1, &end, 0);
	return text[len + 1] && !*end;
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
	(void)info;
	for (int i = 0; i < argc; i++) {
		if (!strncmp(argv[i], "out=", 4)) {
			out = argv[i] + 4;
		} else if (!number(argv[i], "skip", &skip) && !number(argv[i], "count", &count)) {
			fprintf(stderr, "tlbcore_trace: found `%s`, expected out=FILE, skip=N or count=N\n", argv[i]);
			return 1;
		}
	}
	qemu_plugin_register_vcpu_init_cb(id, on_vcpu);
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
	qemu_plugin_register_atexit_cb(id, on_end, NULL);
	return 0;
}
