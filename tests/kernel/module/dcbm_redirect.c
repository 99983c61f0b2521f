// SPDX-License-Identifier: GPL-2.0
/*
 * Leads the page migration of a stock kernel through this module, so that whole batches can be copied by an engine at
 * the place where the series does it: after the unmap phase, before the first folio is moved.
 *
 * Three functions of mm/ are replaced by way of ftrace (IPMODIFY):
 *
 *   migrate_pages()       hands its own get_new_folio/put_new_folio on, which note who goes where, and carries the
 *                         reason (mm/migrate.c; the reason is an argument here and nowhere further down)
 *   try_to_unmap_flush()  migrate_pages_batch() calls it when all folios of a batch are locked, unmapped and gone from
 *                         the TLBs: here the batch is copied
 *   folio_mc_copy()       __migrate_folio() copies with it: done already, or by CPU
 *
 * Not a livepatch: its transition takes seconds each way and stands still while a copy sleeps, so that a module could
 * not be reloaded between two tests. In return ftrace knows nothing of tasks that sleep in a replacement; they are
 * counted, and the unload waits for them.
 *
 * The originals are called by address, past the symbol: on a CPU with indirect branch tracking boot with ibt=off.
 */
#include <linux/delay.h>
#include <linux/ftrace.h>
#include <linux/kprobes.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/version.h>

#include "dcbm.h"

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 12, 0) || LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
#error "made for 6.12: the three functions and their order in mm/migrate.c were looked up there only"
#endif

/* One migrate_pages() under way, on the stack of its task. Direct reclaim nests: demotion inside of an allocation. */
struct call {
	struct list_head node;
	struct task_struct *task;
	int reason;
	new_folio_t *get;
	free_folio_t *put;
	unsigned long private;
	struct dcbm_pair *pairs;	/* of the batch under way */
	unsigned int nr, max, next;
	bool allocating;		/* a flush now is that of a reclaim inside of get() */
	bool flushed;			/* the unmap phase is over; the next pair is another batch's */
};

static LIST_HEAD(calls);
static DEFINE_SPINLOCK(calls_lock);
static atomic_t inside = ATOMIC_INIT(0);	/* tasks in code of this file */

static struct call *find_call(void)
{
	struct call *call, *found = NULL;

	spin_lock(&calls_lock);
	list_for_each_entry(call, &calls, node)	/* newest first */
		if (call->task == current) {
			found = call;
			break;
		}
	spin_unlock(&calls_lock);
	return found;
}

static bool make_room(struct call *call)
{
	unsigned int max = call->max ? 2 * call->max : 32;
	struct dcbm_pair *pairs;

	if (call->nr < call->max)
		return true;
	pairs = krealloc_array(call->pairs, max, sizeof(*pairs), GFP_NOWAIT | __GFP_NOWARN);
	if (!pairs)
		return false;	/* the CPU will copy this one */
	call->pairs = pairs;
	call->max = max;
	return true;
}

static void note_pair(struct call *call, struct folio *src, struct folio *dst)
{
	if (call->flushed) {
		call->nr = call->next = 0;
		call->flushed = false;
	}
	if (dcbm_wants(call->reason) && make_room(call))
		call->pairs[call->nr++] = (struct dcbm_pair){ .src = src, .dst = dst };
}

static struct folio *get_noted(struct folio *src, unsigned long private)
{
	struct call *call = (struct call *)private;
	struct folio *dst;

	call->allocating = true;
	dst = call->get(src, call->private);
	call->allocating = false;
	if (dst)
		note_pair(call, src, dst);
	return dst;
}

static void put_noted(struct folio *dst, unsigned long private)
{
	struct call *call = (struct call *)private;
	unsigned int i;

	for (i = 0; i < call->nr; i++)
		if (call->pairs[i].dst == dst)
			call->pairs[i].src = NULL;
	if (call->put)
		call->put(dst, call->private);
	else
		folio_put(dst);
}

/* Whether this folio's content is there. V6 uses the mark up, so a second pass copies again; V5 keeps it. */
static bool take_mark(struct call *call, struct folio *src, struct folio *dst)
{
	unsigned int i, k;

	for (i = 0; i < call->nr; i++) {
		k = (call->next + i) % call->nr;	/* they come in the order in which they were noted */
		if (call->pairs[k].src == src && call->pairs[k].dst == dst) {
			bool copied = call->pairs[k].copied;

			call->next = k + 1;
			call->pairs[k].copied = copied && DCBM_MARK_LASTS;
			return copied;
		}
	}
	return false;
}

static int migrate_pages_here(struct list_head *from, new_folio_t get, free_folio_t put, unsigned long private,
			      enum migrate_mode mode, int reason, unsigned int *ret_succeeded);
static void try_to_unmap_flush_here(void);
static int folio_mc_copy_here(struct folio *dst, struct folio *src);

/* One ftrace_ops for all of them, since taking one away waits for every task of the machine. */
static struct redirection {
	const char *name;
	void *here;
	unsigned long original;
} redirections[] = {
	{ .name = "migrate_pages", .here = migrate_pages_here },
	{ .name = "try_to_unmap_flush", .here = try_to_unmap_flush_here },
	{ .name = "folio_mc_copy", .here = folio_mc_copy_here },
};

#define ORIGINAL(i, type) ((typeof(type) *)redirections[i].original)

/*
 * hugetlb folios that get no put_new_folio are put back by a function that modules cannot call: such a list goes the
 * kernel's way as a whole. They take another path and are never offloaded anyway.
 */
static bool has_hugetlb(struct list_head *from)
{
	struct folio *folio;

	list_for_each_entry(folio, from, lru)
		if (folio_test_hugetlb(folio))
			return true;
	return false;
}

static int migrate_pages_here(struct list_head *from, new_folio_t get, free_folio_t put, unsigned long private,
			      enum migrate_mode mode, int reason, unsigned int *ret_succeeded)
{
	struct call call = { .task = current, .reason = reason, .get = get, .put = put, .private = private };
	bool noted = put || !has_hugetlb(from);
	int rc;

	spin_lock(&calls_lock);
	list_add(&call.node, &calls);
	spin_unlock(&calls_lock);
	if (noted)
		rc = ORIGINAL(0, migrate_pages)(from, get_noted, put_noted, (unsigned long)&call, mode,
							reason, ret_succeeded);
	else
		rc = ORIGINAL(0, migrate_pages)(from, get, put, private, mode, reason, ret_succeeded);
	spin_lock(&calls_lock);
	list_del(&call.node);
	spin_unlock(&calls_lock);
	kfree(call.pairs);
	atomic_dec(&inside);
	return rc;
}

static void try_to_unmap_flush_here(void)
{
	struct call *call;

	ORIGINAL(1, try_to_unmap_flush_here)();
	call = find_call();
	if (call && !call->allocating && !call->flushed && call->nr) {
		call->flushed = true;
		dcbm_copy_batch(call->pairs, call->nr, call->reason);
	}
	atomic_dec(&inside);
}

static int folio_mc_copy_here(struct folio *dst, struct folio *src)
{
	struct call *call = find_call();
	int rc = 0;

	if (!call || !take_mark(call, src, dst)) {
		atomic_long_inc(&dcbm_count_of(call ? call->reason : MR_TYPES)->by_cpu);
		/* Buffers of a block device are copied with a spinlock held (buffer_migrate_folio_norefs). */
		if (dcbm_cpu_delay_us && !in_atomic())
			usleep_range(dcbm_cpu_delay_us, dcbm_cpu_delay_us + 50);
		rc = folio_mc_copy(dst, src);
	}
	atomic_dec(&inside);
	return rc;
}

static void notrace redirect(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *ops,
			     struct ftrace_regs *fregs)
{
	struct redirection *to = redirections;
	int bit;

	if (within_module(parent_ip, THIS_MODULE))
		return;		/* it is we who call the original */
	while (to->original != ip)
		if (++to == redirections + ARRAY_SIZE(redirections))
			return;
	bit = ftrace_test_recursion_trylock(ip, parent_ip);
	if (bit < 0)
		return;
	atomic_inc(&inside);
	ftrace_regs_set_instruction_pointer(fregs, (unsigned long)to->here);
	ftrace_test_recursion_unlock(bit);
}

static struct ftrace_ops ops = {
	.func = redirect,
	.flags = FTRACE_OPS_FL_IPMODIFY | FTRACE_OPS_FL_DYNAMIC | FTRACE_OPS_FL_PERMANENT,
};

/* A kprobe that is never armed finds a symbol that is not exported, behind its ENDBR: where ftrace has its call. */
static unsigned long address_of(const char *name)
{
	struct kprobe probe = { .symbol_name = name, .flags = KPROBE_FLAG_DISABLED };
	unsigned long address;

	if (register_kprobe(&probe))
		return 0;
	address = (unsigned long)probe.addr;
	unregister_kprobe(&probe);
	return address;
}

int dcbm_redirect(void)
{
	unsigned int i;
	int rc;

	for (i = 0; i < ARRAY_SIZE(redirections); i++) {
		redirections[i].original = address_of(redirections[i].name);
		rc = redirections[i].original ? ftrace_set_filter_ip(&ops, redirections[i].original, 0, 0) : -ENOENT;
		if (rc) {
			pr_err("dcbm: %s cannot be redirected (%d)\n", redirections[i].name, rc);
			goto no_filter;
		}
	}
	rc = register_ftrace_function(&ops);
	if (!rc)
		return 0;
	pr_err("dcbm: page migration cannot be redirected (%d)\n", rc);
no_filter:
	ftrace_free_filter(&ops);
	return rc;
}

void dcbm_unredirect(void)
{
	unregister_ftrace_function(&ops);
	ftrace_free_filter(&ops);
	while (atomic_read(&inside))	/* tasks that sleep in a replacement, or were just sent here */
		msleep(20);
	synchronize_rcu_tasks();	/* and those in its last instructions */
}
