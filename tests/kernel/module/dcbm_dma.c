// SPDX-License-Identifier: GPL-2.0
/*
 * Copies a batch with DMA channels that are requested for it and released after it.
 *
 * As the series' driver does it (RFC v6 of 30 June 2026, 4/5): the folios are cut into one share per channel; each
 * share is mapped as two scatter lists; only the last descriptor of a channel reports; the channels are waited for one
 * after the other, each for 10 s; every channel is terminated after every batch. What an engine reports as the result
 * is not looked at: whoever completes is believed.
 */
#include <linux/completion.h>
#include <linux/dma-mapping.h>
#include <linux/dmaengine.h>
#include <linux/jiffies.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>

#include "dcbm.h"

/* The folios are locked and unmapped: nothing here may wait for memory. */
#define GFP_BATCH (GFP_NOWAIT | __GFP_NOWARN)

struct share {
	struct dma_chan *chan;
	struct device *dev;
	struct sg_table src, dst;
	bool src_mapped, dst_mapped;
	struct completion done;
};

static unsigned int request_channels(struct share *shares, unsigned int wanted)
{
	struct dma_chan *chan;
	dma_cap_mask_t mask;
	unsigned int n;

	dma_cap_zero(mask);
	dma_cap_set(DMA_MEMCPY, mask);
	for (n = 0; n < wanted; n++) {
		chan = dma_request_chan_by_mask(&mask);
		if (IS_ERR(chan))
			break;
		shares[n].chan = chan;
		shares[n].dev = dmaengine_get_dma_device(chan);
	}
	return n;
}

static void on_done(void *done)
{
	complete(done);
}

static int map_share(struct share *share, struct dcbm_pair **pairs, unsigned int nr)
{
	struct scatterlist *src, *dst;
	unsigned int i;

	if (sg_alloc_table(&share->src, nr, GFP_BATCH) || sg_alloc_table(&share->dst, nr, GFP_BATCH))
		return -ENOMEM;
	for (i = 0, src = share->src.sgl, dst = share->dst.sgl; i < nr; i++, src = sg_next(src), dst = sg_next(dst)) {
		sg_set_folio(src, pairs[i]->src, folio_size(pairs[i]->src), 0);
		sg_set_folio(dst, pairs[i]->dst, folio_size(pairs[i]->src), 0);
	}
	if (dma_map_sgtable(share->dev, &share->src, DMA_TO_DEVICE, 0))
		return -EIO;
	share->src_mapped = true;
	if (dma_map_sgtable(share->dev, &share->dst, DMA_FROM_DEVICE, 0))
		return -EIO;
	share->dst_mapped = true;
	/* An IOMMU may have merged the one and not the other. */
	return share->src.nents == share->dst.nents ? 0 : -EINVAL;
}

static int submit_share(struct share *share)
{
	struct scatterlist *src, *dst = share->dst.sgl;
	struct dma_async_tx_descriptor *tx;
	int i;

	for_each_sgtable_dma_sg(&share->src, src, i) {
		bool last = i == share->src.nents - 1;

		if (sg_dma_len(src) != sg_dma_len(dst))
			return -EINVAL;
		tx = dmaengine_prep_dma_memcpy(share->chan, sg_dma_address(dst), sg_dma_address(src), sg_dma_len(src),
					       DMA_CTRL_ACK | (last ? DMA_PREP_INTERRUPT : 0));
		if (!tx)
			return -EIO;
		if (last) {
			tx->callback = on_done;
			tx->callback_param = &share->done;
		}
		if (dma_submit_error(dmaengine_submit(tx)))
			return -EIO;
		dst = sg_next(dst);
	}
	return 0;
}

static void end_share(struct share *share)
{
	dmaengine_terminate_sync(share->chan);	/* after this no engine writes to a folio any more */
	if (share->dst_mapped)
		dma_unmap_sgtable(share->dev, &share->dst, DMA_FROM_DEVICE, 0);
	if (share->src_mapped)
		dma_unmap_sgtable(share->dev, &share->src, DMA_TO_DEVICE, 0);
	sg_free_table(&share->dst);
	sg_free_table(&share->src);
	dma_release_channel(share->chan);
}

static int copy_shares(struct share *shares, unsigned int channels, struct dcbm_pair **pairs, unsigned int nr)
{
	unsigned int i, first = 0;
	int rc;

	for (i = 0; i < channels; i++) {
		unsigned int end = nr * (i + 1) / channels;

		init_completion(&shares[i].done);
		rc = map_share(&shares[i], pairs + first, end - first);
		if (!rc)
			rc = submit_share(&shares[i]);
		if (rc)
			return rc;
		first = end;
	}
	for (i = 0; i < channels; i++)
		dma_async_issue_pending(shares[i].chan);
	for (i = 0; i < channels; i++)
		if (!wait_for_completion_timeout(&shares[i].done, msecs_to_jiffies(dcbm_timeout_ms)))
			return -ETIMEDOUT;
	return 0;
}

/* The name is what the rate limit prints: "folios_copy_dma: 15 callbacks suppressed". */
int folios_copy_dma(struct dcbm_pair **pairs, unsigned int nr)
{
	unsigned int i, wanted = min3(READ_ONCE(dcbm_nr_dma_chan), nr, DCBM_CHANNELS_MAX + 0U), channels;
	struct share *shares = kcalloc(wanted, sizeof(*shares), GFP_BATCH);
	int rc = -ENODEV;

	if (!shares)
		return -ENOMEM;
	channels = request_channels(shares, wanted);
	if (channels)
		rc = copy_shares(shares, channels, pairs, nr);
	for (i = 0; i < channels; i++)
		end_share(&shares[i]);
	kfree(shares);
	if (rc && rc != -ENODEV && rc != -ENOMEM)
		pr_warn_ratelimited("dcbm: DMA copy failed (%d), falling back to CPU\n", rc);
	return rc;
}
