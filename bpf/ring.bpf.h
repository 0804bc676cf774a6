/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * The ring through which every record goes to the user side: an array that the
 * user side has mapped, in slots of one cache line.
 *
 * The kernel's own ring buffer takes a lock for each record and ends it with an
 * exchange, which waits until the record's lines have come from the core that
 * read them last. Here a record takes its place with one compare-and-swap, and
 * is there as soon as its first word is: nothing waits. One ring serves all CPUs,
 * so records stay in the order in which their places were taken.
 */
#ifndef PORT_REPORTER_RING_H
#define PORT_REPORTER_RING_H

#include <stdbool.h>

#include "kernel.h"
#include "records.h"

#include <bpf/bpf_helpers.h>

/* How often a place is tried for while other CPUs take theirs. */
#define RING_TRIES 100

/* The user side gives it its size. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, (8 << 20) / sizeof(struct ring_slot));
	__type(key, __u32);
	__type(value, struct ring_slot);
} ring_slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ring_ends);
} ring_ends SEC(".maps");

/* Wakes the user side, which can wait for this kind of map only. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring_alarm SEC(".maps");

/* A place that was taken in the ring. */
struct place {
	struct ring_ends *ends;
	struct ring_slot *first;
	__u64 position;
};

static __always_inline struct ring_slot *slot_at(const struct ring_ends *ends, __u64 position)
{
	__u32 index = position & (ends->slots - 1);

	return bpf_map_lookup_elem(&ring_slots, &index);
}

/* Takes so many slots in a row. Returns false if there is no room for them. A
 * place that is taken has to be published: the user side waits for it. */
static __always_inline bool take_place(struct place *place, __u32 slots)
{
	__u32 zero = 0;
	struct ring_ends *ends = bpf_map_lookup_elem(&ring_ends, &zero);
	int i;

	if (!ends)
		return false;
#pragma clang loop unroll(disable)
	for (i = 0; i < RING_TRIES; i++) {
		__u64 from = *(volatile __u64 *)&ends->claimed;
		__u64 taken = *(volatile __u64 *)&ends->taken;

		/* Less than nothing is in use if it was taken meanwhile. */
		if ((__s64)(from + slots - taken) > (__s64)ends->slots)
			return false;
		if (__sync_val_compare_and_swap(&ends->claimed, from, from + slots) != from)
			continue;
		place->ends = ends;
		place->position = from;
		place->first = slot_at(ends, from);
		/* It is never missing: the index is within the array. */
		return place->first != 0;
	}
	return false;
}

/* The record, of so many bytes, is complete. */
static __always_inline void publish(struct place *place, __u32 size)
{
	__u64 head = (place->position + 1) << RING_SIZE_BITS | size;
	struct ring_ends *ends = place->ends;

	/* The record has to be seen before its head is. Where the processor keeps
	 * the order of what it writes, nothing is needed for that. */
	asm volatile("" ::: "memory");
	if (ends->is_weakly_ordered)
		__sync_lock_test_and_set(&place->first->head, head);
	else
		*(volatile __u64 *)&place->first->head = head;
	/* Whoever goes to sleep looks at "claimed" once more after saying so. */
	if (ends->is_sleeping) {
		ends->is_sleeping = 0;
		bpf_ringbuf_output(&ring_alarm, &head, sizeof(head), BPF_RB_FORCE_WAKEUP);
	}
}

static __always_inline void copy_slot(struct ring_slot *slot, const __u64 *words, __u32 count)
{
	__u32 i;

#pragma unroll
	for (i = 0; i < count; i++)
		slot->data[i] = words[i];
}

/* Puts in a record of a fixed size, a multiple of eight bytes. Returns false if
 * there is no room. */
static __always_inline bool put(const void *record, __u32 size)
{
	const __u32 words = size / 8, slots = (words + SLOT_WORDS - 1) / SLOT_WORDS;
	struct place place;
	__u32 i;

	if (!take_place(&place, slots))
		return false;
#pragma unroll
	for (i = 0; i < slots; i++) {
		const __u32 done = i * SLOT_WORDS, left = words - done;
		struct ring_slot *slot = i ? slot_at(place.ends, place.position + i) : place.first;

		if (!slot)
			return false;
		copy_slot(slot, (const __u64 *)record + done, left < SLOT_WORDS ? left : SLOT_WORDS);
	}
	publish(&place, size);
	return true;
}

/* Puts in the first bytes of a record that lies in memory of whole slots, "most"
 * in number. Returns false if there is no room. */
static __always_inline bool put_long(const __u64 *words, __u32 size, __u32 most)
{
	__u32 slots = (size + SLOT_WORDS * 8 - 1) / (SLOT_WORDS * 8);
	struct place place;
	__u32 i;

	if (!take_place(&place, slots))
		return false;
#pragma clang loop unroll(disable)
	for (i = 0; i < most; i++) {
		struct ring_slot *slot;

		if (i >= slots)
			break;
		slot = slot_at(place.ends, place.position + i);
		if (!slot)
			return false;
		copy_slot(slot, words + i * SLOT_WORDS, SLOT_WORDS);
	}
	publish(&place, size);
	return true;
}

#endif
