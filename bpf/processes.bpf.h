/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * Processes and control groups: what is gone before the user side could read
 * of it.
 */
#ifndef PORT_REPORTER_PROCESSES_H
#define PORT_REPORTER_PROCESSES_H

#include "common.bpf.h"

/* Records too long for the stack, in whole slots. */
#define EXEC_SLOTS (sizeof(struct exec_record) / (SLOT_WORDS * 8) + 1)
#define CGROUP_SLOTS (sizeof(struct cgroup_record) / (SLOT_WORDS * 8) + 1)

union exec_scratch {
	struct exec_record record;
	__u64 words[EXEC_SLOTS * SLOT_WORDS];
};

union cgroup_scratch {
	struct cgroup_record record;
	__u64 words[CGROUP_SLOTS * SLOT_WORDS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, union exec_scratch);
} exec_scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, union cgroup_scratch);
} cgroup_scratch SEC(".maps");

/*
 * Writes the components of a path from the last to the first, each ended by a
 * NUL, and returns their length. Mounts are climbed, so that the path is the
 * one that the process sees below the root of its mount namespace.
 */
static __always_inline __u32 write_path(struct exec_record *record, struct file *file)
{
	struct dentry *dentry = BPF_CORE_READ(file, f_path.dentry);
	struct vfsmount *vfsmount = BPF_CORE_READ(file, f_path.mnt);
	__u32 length = 0;
	int i;

	record->path_cut = 1;
#pragma clang loop unroll(disable)
	for (i = 0; i < 64; i++) {
		struct dentry *parent = BPF_CORE_READ(dentry, d_parent);
		struct dentry *root = BPF_CORE_READ(vfsmount, mnt_root);
		const unsigned char *name;
		long written;

		if (dentry == root || dentry == parent) {
			struct mount *mount = (void *)vfsmount -
					      bpf_core_field_offset(struct mount, mnt);
			struct mount *above = BPF_CORE_READ(mount, mnt_parent);

			if (dentry != root || mount == above) {
				record->path_cut = 0;
				break;
			}
			dentry = BPF_CORE_READ(mount, mnt_mountpoint);
			vfsmount = (void *)above + bpf_core_field_offset(struct mount, mnt);
			continue;
		}
		if (length > EXEC_PATH - 256)
			break;
		name = BPF_CORE_READ(dentry, d_name.name);
		written = bpf_probe_read_kernel_str(record->data + length, 256, name);
		if (written < 0)
			break;
		length += written & 0x1ff;
		dentry = parent;
	}
	return length;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(process_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	__u32 zero = 0;
	union exec_scratch *scratch = bpf_map_lookup_elem(&exec_scratch, &zero);
	struct exec_record *record;
	unsigned long start, end;
	__u32 path, arguments;

	mark_fired(HOOK_EXEC);
	if (!scratch)
		return 0;
	record = &scratch->record;
	fill_header(&record->header, RECORD_EXEC);
	fill_process(&record->process, task);
	record->cgroup = bpf_get_current_cgroup_id();
	record->parent = BPF_CORE_READ(task, real_parent, tgid);
	BPF_CORE_READ_STR_INTO(&record->comm, task, comm);

	path = write_path(record, BPF_CORE_READ(bprm, file));
	if (path > EXEC_PATH)
		path = EXEC_PATH;
	record->path_length = path;

	start = BPF_CORE_READ(task, mm, arg_start);
	end = BPF_CORE_READ(task, mm, arg_end);
	arguments = end > start ? end - start : 0;
	record->arguments_cut = arguments > EXEC_ARGUMENTS;
	if (arguments > EXEC_ARGUMENTS)
		arguments = EXEC_ARGUMENTS;
	if (arguments && bpf_probe_read_user(record->data + path, arguments, (void *)start))
		arguments = 0;
	record->arguments_length = arguments;

	path += arguments;
	if (path > EXEC_DATA)
		path = EXEC_DATA;
	if (!put_long(scratch->words, __builtin_offsetof(struct exec_record, data) + path,
		      EXEC_SLOTS))
		count(COUNTER_PROCESSES_LOST);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(process_fork, struct task_struct *parent, struct task_struct *child)
{
	struct fork_record record;

	if (child->pid != child->tgid)
		return 0;
	mark_fired(HOOK_FORK);
	fill_header(&record.header, RECORD_FORK);
	fill_process(&record.parent, parent);
	fill_process(&record.child, child);
	if (!put(&record, sizeof(record)))
		count(COUNTER_PROCESSES_LOST);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exit, struct task_struct *task)
{
	struct exit_record record;

	/* The process is gone with its last thread. */
	if (task->signal->live.counter > 0)
		return 0;
	mark_fired(HOOK_EXIT);
	fill_header(&record.header, RECORD_EXIT);
	fill_process(&record.process, task);
	if (!put(&record, sizeof(record)))
		count(COUNTER_PROCESSES_LOST);
	return 0;
}

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(group_made, struct cgroup *group, const char *path)
{
	__u32 zero = 0;
	union cgroup_scratch *scratch = bpf_map_lookup_elem(&cgroup_scratch, &zero);
	struct cgroup_record *record;
	long length;

	if (group->root->hierarchy_id != 0)
		return 0;
	mark_fired(HOOK_CGROUP);
	if (!scratch)
		return 0;
	record = &scratch->record;
	fill_header(&record->header, RECORD_CGROUP);
	record->id = group->kn->id;
	record->path[0] = 0;
	length = bpf_probe_read_kernel_str(record->path, sizeof(record->path), path);
	if (length < 1 || length > CGROUP_PATH)
		length = 1;
	if (!put_long(scratch->words, __builtin_offsetof(struct cgroup_record, path) + length,
		      CGROUP_SLOTS))
		count(COUNTER_PROCESSES_LOST);
	return 0;
}

#endif
