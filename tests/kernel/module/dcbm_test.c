// SPDX-License-Identifier: GPL-2.0
/*
 * What only tests have, in /sys/kernel/debug/dcbm_test/, so that the module's own folder holds the revision's files
 * and no other:
 *
 *   reasons          one line per reason: what the kernel's tracepoints say, what the engine was given, what the CPU did
 *   timeout_ms       how long one channel is waited for (10000 in the series)
 *   cpu_delay_us     makes each copy by CPU slower, so that an engine can be the faster one
 *   other_migrator   Y: another migrator is registered, so turning on answers EBUSY
 *
 * The tracepoints are not exported by name; the kernel's own list has them (for_each_kernel_tracepoint).
 */
#include <linux/debugfs.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/string.h>
#include <linux/tracepoint.h>

#include "dcbm.h"

u32 dcbm_timeout_ms = 10000;
u32 dcbm_cpu_delay_us;
bool dcbm_other_migrator;

static struct dentry *folder;
static struct dcbm_count counts[MR_TYPES + 1];	/* the last: copies outside of any migrate_pages() */
static struct tracepoint *start, *end;

struct dcbm_count *dcbm_count_of(int reason)
{
	return &counts[reason >= 0 && reason < MR_TYPES ? reason : MR_TYPES];
}

/* Base pages, as in /proc/vmstat; the other numbers are folios. */
static int reasons_show(struct seq_file *file, void *unused)
{
	int i;

	for (i = 0; i <= MR_TYPES; i++) {
		struct dcbm_count *n = &counts[i];

		seq_printf(file, "%s calls=%ld pages_ok=%ld pages_failed=%ld batches=%ld offloaded=%ld failed=%ld "
			   "no_channel=%ld by_cpu=%ld bytes=%ld\n",
			   i < MR_TYPES ? dcbm_reason_name(i) : "other", atomic_long_read(&n->calls),
			   atomic_long_read(&n->pages_ok), atomic_long_read(&n->pages_failed),
			   atomic_long_read(&n->batches), atomic_long_read(&n->offloaded),
			   atomic_long_read(&n->failed), atomic_long_read(&n->no_channel),
			   atomic_long_read(&n->by_cpu), atomic_long_read(&n->bytes));
	}
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(reasons);

static void on_start(void *unused, enum migrate_mode mode, int reason)
{
	atomic_long_inc(&dcbm_count_of(reason)->calls);
}

static void on_end(void *unused, unsigned long succeeded, unsigned long failed, unsigned long thp_succeeded,
		   unsigned long thp_failed, unsigned long thp_split, unsigned long large_folio_split,
		   enum migrate_mode mode, int reason)
{
	atomic_long_add(succeeded, &dcbm_count_of(reason)->pages_ok);
	atomic_long_add(failed, &dcbm_count_of(reason)->pages_failed);
}

static void find(struct tracepoint *tp, void *unused)
{
	if (!strcmp(tp->name, "mm_migrate_pages_start"))
		start = tp;
	else if (!strcmp(tp->name, "mm_migrate_pages"))
		end = tp;
}

int dcbm_test_begin(void)
{
	int rc;

	for_each_kernel_tracepoint(find, NULL);
	if (!start || !end)
		return -ENOENT;
	rc = tracepoint_probe_register(start, on_start, NULL);
	if (rc)
		return rc;
	rc = tracepoint_probe_register(end, on_end, NULL);
	if (rc) {
		tracepoint_probe_unregister(start, on_start, NULL);
		tracepoint_synchronize_unregister();
		return rc;
	}
	folder = debugfs_create_dir("dcbm_test", NULL);
	debugfs_create_file("reasons", 0444, folder, NULL, &reasons_fops);
	debugfs_create_u32("timeout_ms", 0644, folder, &dcbm_timeout_ms);
	debugfs_create_u32("cpu_delay_us", 0644, folder, &dcbm_cpu_delay_us);
	debugfs_create_bool("other_migrator", 0644, folder, &dcbm_other_migrator);
	return 0;
}

void dcbm_test_end(void)
{
	debugfs_remove(folder);
	tracepoint_probe_unregister(end, on_end, NULL);
	tracepoint_probe_unregister(start, on_start, NULL);
	tracepoint_synchronize_unregister();
}
