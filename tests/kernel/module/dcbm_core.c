// SPDX-License-Identifier: GPL-2.0
/*
 * Who may copy a batch. Stands for mm/migrate_copy_offload.c of the series and for the state of its driver.
 *
 * A turn-off blocks: it waits for the batches in flight, with the driver's mutex held, so that other writers queue.
 * Turning on asks for no channel. (RFC v5 of 28 April 2026, 5/7; RFC v6 of 30 June 2026, 3/5.)
 */
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/srcu.h>

#include "dcbm.h"

unsigned int dcbm_nr_dma_chan = 1;
unsigned long dcbm_reason_mask = DCBM_FIRST_REASONS;
atomic_long_t dcbm_folios_migrated, dcbm_folios_failures;

static DEFINE_MUTEX(switch_mutex);
static bool enabled;		/* batches go to the engine */
static bool shown;		/* what the file says: still 1 until a turn-off is over */
static bool ready;		/* the redirection is in place */
static bool wanted_at_load;
DEFINE_STATIC_SRCU(in_flight);

static int turn_on(void)
{
	int rc = 0;

	if (dcbm_other_migrator)
		rc = -EBUSY;
	else if (!try_module_get(THIS_MODULE))	/* it is going away */
		rc = -ENODEV;
	if (rc) {
		pr_err("migrate_offload: DCBM: failed to register (%d)\n", rc);
		return rc;
	}
	WRITE_ONCE(enabled, true);
	WRITE_ONCE(shown, true);
#ifdef DCBM_V5
	pr_info("migrate_offload: enabled by DCBM\n");
#else
	pr_info("migrate_offload: enabled by DCBM (reason_mask=0x%lx)\n", dcbm_reason_mask);
#endif
	return 0;
}

static void turn_off(void)
{
	WRITE_ONCE(enabled, false);
	synchronize_srcu(&in_flight);
	WRITE_ONCE(shown, false);
	pr_info("migrate_offload: disabled by DCBM\n");
	module_put(THIS_MODULE);
}

int dcbm_set_offloading(bool on)
{
	int rc = 0;

	mutex_lock(&switch_mutex);
	if (!ready)	/* V6's parameters are set before the module's init runs */
		wanted_at_load = on;
	else if (on && !shown)
		rc = turn_on();
	else if (!on && shown)
		turn_off();
	mutex_unlock(&switch_mutex);
	return rc;
}

/* Takes effect with the next batch. Waits while a turn-off does, which holds the mutex. */
void dcbm_set_channels(unsigned int channels)
{
	mutex_lock(&switch_mutex);
	WRITE_ONCE(dcbm_nr_dma_chan, channels);
	mutex_unlock(&switch_mutex);
}

/* Called once at the end of init: now what was asked for at load can be done. */
void dcbm_ready(void)
{
	mutex_lock(&switch_mutex);
	ready = true;
	mutex_unlock(&switch_mutex);
	if (wanted_at_load)
		dcbm_set_offloading(true);
}

bool dcbm_offloading(void)
{
	return READ_ONCE(shown);
}

bool dcbm_wants(int reason)
{
	return READ_ONCE(enabled) && reason >= 0 && READ_ONCE(dcbm_reason_mask) & BIT(reason);
}

/* As folio_expected_refs() of mm/migrate.c: who else holds a reference may write to the folio after the copy. */
static bool pinned(struct folio *folio)
{
	int expected = 1;

	if (folio_mapping(folio))	/* none for anonymous memory outside of the swap cache */
		expected += folio_nr_pages(folio) + folio_test_private(folio);
	return folio_ref_count(folio) != expected;
}

static bool eligible(struct dcbm_pair *pair)
{
	if (!pair->src || folio_test_hugetlb(pair->src) || __folio_test_movable(pair->src))
		return false;
	return !DCBM_LEAVES_OUT_PINNED || !pinned(pair->src);
}

static void count(struct dcbm_pair **chosen, unsigned int nr, int reason, int rc)
{
	struct dcbm_count *counts = dcbm_count_of(reason);
	unsigned int i;

	/* No channel or no memory: the CPU copies, and the series keeps quiet about it. */
	if (rc == -ENODEV || rc == -ENOMEM) {
		atomic_long_add(nr, &counts->no_channel);
		return;
	}
	atomic_long_inc(&counts->batches);
	if (rc) {
		atomic_long_add(nr, &dcbm_folios_failures);
		atomic_long_add(nr, &counts->failed);
		return;
	}
	atomic_long_add(nr, &dcbm_folios_migrated);
	atomic_long_add(nr, &counts->offloaded);
	for (i = 0; i < nr; i++) {
		chosen[i]->copied = true;
		atomic_long_add(folio_size(chosen[i]->src), &counts->bytes);
	}
}

/* All or nothing, as in the series: a failure leaves every folio of the batch to the CPU. */
static void copy_chosen(struct dcbm_pair *pairs, unsigned int nr, int reason)
{
	struct dcbm_pair **chosen = kmalloc_array(nr, sizeof(*chosen), GFP_NOWAIT | __GFP_NOWARN);
	unsigned int i, n = 0;

	if (!chosen)
		return;
	for (i = 0; i < nr; i++)
		if (eligible(&pairs[i]))
			chosen[n++] = &pairs[i];
	if (n)
		count(chosen, n, reason, folios_copy_dma(chosen, n));
	kfree(chosen);
}

void dcbm_copy_batch(struct dcbm_pair *pairs, unsigned int nr, int reason)
{
	int token = srcu_read_lock(&in_flight);

	if (dcbm_wants(reason))
		copy_chosen(pairs, nr, reason);
	srcu_read_unlock(&in_flight, token);
}

static int __init dcbm_init(void)
{
	int rc = dcbm_test_begin();

	if (rc)
		return rc;
	rc = dcbm_redirect();
	if (rc)
		goto no_redirect;
	rc = dcbm_files_create();
	if (rc)
		goto no_files;
	pr_info("dcbm: DMA Core Batch Migrator initialized\n");
	dcbm_ready();
	return 0;

no_files:
	dcbm_unredirect();
no_redirect:
	dcbm_test_end();
	return rc;
}

/* Offload is off here: while it is on, it holds a reference to the module. */
static void __exit dcbm_exit(void)
{
	dcbm_files_remove();
	dcbm_unredirect();
	dcbm_test_end();
	pr_info("dcbm: DMA Core Batch Migrator unloaded\n");
}

module_init(dcbm_init);
module_exit(dcbm_exit);
MODULE_DESCRIPTION("Stand-in for the DMA core batch migrator, for tests");
MODULE_LICENSE("GPL");
