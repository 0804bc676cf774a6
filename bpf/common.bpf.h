/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * What all programs share: the maps, what is remembered of each socket, which
 * process is at work, and the record that is made of both.
 *
 * Each socket record takes the next number of its CPU before it asks for room
 * in the ring; a record that finds no room leaves a hole, by which the user
 * side proves the loss and dates it.
 */
#ifndef PORT_REPORTER_COMMON_H
#define PORT_REPORTER_COMMON_H

#include <stdbool.h>

#include "kernel.h"
#include "records.h"
#include "ring.bpf.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

/* What is kept with each socket. */
struct memory {
	__u64 cookie;		/* whose memory; 0: nobody's */
	__u64 sk;		/* UDP: the socket's address, to be read as a number */
	struct process_key owner;
	__u64 since;
	__u32 netns;
	__u16 local_port;
	__u16 remote_port;
	__u8 family;
	__u8 attribution;
	__u8 reported;		/* the record that opens the port was made */
	__u8 connecting;	/* it connects: SYN_RECEIVED is a simultaneous open */
	__u8 owed;		/* the next record has to tell all, and must not be brief */
	__u8 protocol;		/* as in the record; 0: TCP */
	__u8 padding[2];	/* the addresses are read as words */
	__u8 local_ip[16];
	__u8 remote_ip[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct memory);
} memories SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, HOOKS);
	__type(key, __u32);
	__type(value, __u32);
} fired SEC(".maps");

/* enum setting */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SETTINGS);
	__type(key, __u32);
	__type(value, __u32);
} settings SEC(".maps");

static __always_inline void mark_fired(__u32 hook)
{
	__u32 *seen = bpf_map_lookup_elem(&fired, &hook);

	if (seen && !*seen)
		*seen = 1;
}

static __always_inline __u64 count(__u32 counter)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &counter);

	return value ? __sync_fetch_and_add(value, 1) : 0;
}

static __always_inline __u32 setting(__u32 key)
{
	__u32 *value = bpf_map_lookup_elem(&settings, &key);

	return value ? *value : 0;
}

static __always_inline bool is_quiet(__u32 pid)
{
	__u32 who = setting(SETTING_QUIET);

	return who && who == pid;
}

static __always_inline void fill_header(struct record_header *header, __u32 kind)
{
	/* Reading the clock is a good part of what a record costs. */
	header->at = kind == RECORD_OWNER ? 0 : bpf_ktime_get_boot_ns();
	header->kind = kind;
	header->cpu = bpf_get_smp_processor_id();
}

/* The process that a task belongs to. */
static __always_inline void fill_process(struct process_key *key, struct task_struct *task)
{
	struct task_struct *leader = BPF_CORE_READ(task, group_leader);

	key->pid = BPF_CORE_READ(task, tgid);
	key->start = BPF_CORE_READ(leader, start_boottime);
	key->uid = BPF_CORE_READ(task, cred, euid.val);
}

static __always_inline void fill_current(struct process_key *key)
{
	struct task_struct *task = bpf_get_current_task_btf();

	key->pid = task->tgid;
	key->start = task->group_leader->start_boottime;
	key->uid = task->cred->euid.val;
}

/* What is remembered of a socket. With BPF_SK_STORAGE_GET_F_CREATE there is
 * always something, unless memory is short. */
static __always_inline struct memory *recall(void *sk, __u64 cookie, __u64 flags)
{
	struct memory *memory = bpf_sk_storage_get(&memories, sk, 0, flags);

	if (memory && memory->cookie != cookie) {
		memory->cookie = cookie;
		memory->attribution = OWNER_UNKNOWN;
		memory->since = 0;
		memory->reported = 0;
		memory->connecting = 0;
		memory->owed = 0;
	}
	return memory;
}

static __always_inline void own(struct memory *memory)
{
	fill_current(&memory->owner);
	memory->attribution = OWNER_CREATOR;
}

/* The owner may have become another user since. Returns true if it has. */
static __always_inline bool renew_user(struct memory *memory)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 uid = task->cred->euid.val;

	if (task->tgid != memory->owner.pid || uid == memory->owner.uid)
		return false;
	memory->owner.uid = uid;
	return true;
}

static __always_inline bool is_mapped(const __u8 *ip)
{
	const __u32 *word = (const __u32 *)ip;

	return word[0] == 0 && word[1] == 0 && word[2] == bpf_htonl(0xffff);
}

/* Makes a record from what is remembered of the socket. */
static __always_inline void fill_record(struct socket_record *record, const struct memory *memory,
					__u8 action, __u8 protocol)
{
	fill_header(&record->header, RECORD_SOCKET);
	record->sequence = count(COUNTER_SOCKETS);
	record->cookie = memory->cookie;
	record->owner = memory->owner;
	record->since = memory->since;
	record->bytes_sent = 0;
	record->bytes_received = 0;
	record->netns = memory->netns;
	record->local_port = memory->local_port;
	record->remote_port = memory->remote_port;
	record->action = action;
	record->attribution = memory->attribution;
	record->protocol = protocol;
	record->family = memory->family;
	record->old_state = 0;
	record->state = 0;
	record->error = 0;
	record->flags = 0;
	__builtin_memset(record->padding, 0, sizeof(record->padding));
	__builtin_memcpy(record->local_ip, memory->local_ip, 16);
	__builtin_memcpy(record->remote_ip, memory->remote_ip, 16);
}

#endif
