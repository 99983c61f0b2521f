/* SPDX-License-Identifier: GPL-2.0 */
/*
 * dcbm - a stand-in for the DMA core batch migrator of the "batch page migration with hardware offload" series, for a
 * stock 6.12 kernel. One source, two modules: v5/dcbm.ko and v6/dcbm.ko differ by DCBM_V5.
 *
 * dcbm_redirect.c  where the kernel's page migration is led through here
 * dcbm_core.c      who may copy a batch, and the wait when that ends ("migrate_offload" in the series)
 * dcbm_dma.c       copies a batch with DMA channels
 * dcbm_files.c     the control files of the revision
 * dcbm_test.c      what only tests have: counts by reason, and switches, in debugfs
 */
#ifndef DCBM_H
#define DCBM_H

#include <linux/bits.h>
#include <linux/build_bug.h>
#include <linux/migrate_mode.h>
#include <linux/types.h>

struct folio;

#define DCBM_CHANNELS_MAX 16
#define DCBM_ALL_REASONS (BIT(MR_TYPES) - 1)

#ifdef DCBM_V5
/* V5's core has a fixed list (RFC v5 of April 2026, mm/migrate_copy_offload.c). */
#define DCBM_FIRST_REASONS (BIT(MR_COMPACTION) | BIT(MR_SYSCALL) | BIT(MR_DEMOTION) | BIT(MR_NUMA_MISPLACED))
#define DCBM_LEAVES_OUT_PINNED false
#define DCBM_MARK_LASTS true
#else
/* V6's is handed over at registration and may change at any time (RFC v6 of June 2026, 3/5 and 4/5). */
#define DCBM_FIRST_REASONS DCBM_ALL_REASONS
#define DCBM_LEAVES_OUT_PINNED true
#define DCBM_MARK_LASTS false
#endif

/* One folio on its way, between the end of the unmap phase and its move. */
struct dcbm_pair {
	struct folio *src;	/* NULL: given up before the copy */
	struct folio *dst;
	bool copied;		/* the engine has copied it; the move needs no copy by CPU */
};

/* dcbm_core.c */
int dcbm_set_offloading(bool on);
void dcbm_set_channels(unsigned int channels);
bool dcbm_offloading(void);
bool dcbm_wants(int reason);
void dcbm_copy_batch(struct dcbm_pair *pairs, unsigned int nr, int reason);
void dcbm_ready(void);
extern unsigned int dcbm_nr_dma_chan;
extern unsigned long dcbm_reason_mask;
extern atomic_long_t dcbm_folios_migrated, dcbm_folios_failures;

/* dcbm_dma.c */
int folios_copy_dma(struct dcbm_pair **pairs, unsigned int nr);

/* dcbm_redirect.c */
int dcbm_redirect(void);
void dcbm_unredirect(void);

/* dcbm_files.c */
int dcbm_files_create(void);
void dcbm_files_remove(void);
const char *dcbm_reason_name(int reason);

/* dcbm_test.c */
struct dcbm_count {
	atomic_long_t calls, pages_ok, pages_failed;			/* from the tracepoints of mm/migrate.c */
	atomic_long_t batches, offloaded, failed, bytes, no_channel;	/* what the engine was given */
	atomic_long_t by_cpu;						/* folios that the kernel copied */
};

int dcbm_test_begin(void);
void dcbm_test_end(void);
struct dcbm_count *dcbm_count_of(int reason);
extern u32 dcbm_timeout_ms, dcbm_cpu_delay_us;
extern bool dcbm_other_migrator;

#endif
