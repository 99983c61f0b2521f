// SPDX-License-Identifier: GPL-2.0
/*
 * softdma - a DMA engine that copies memory with the CPU, for machines that have no other, and that can misbehave.
 *
 * By default it looks like the engines of the published measurements: driver "ptdma", exclusive channels, and counters
 * in /sys/class/dma that stay 0 although it copies (the core never adds to them, drivers/dma/dmaengine.c).
 *
 * All switches are parameters, in /sys/module/softdma/parameters/ and at load:
 *
 *   driver, numa_node, public   what it looks like; at load only
 *   channels                    how many there are; 0: it has gone (surprise removal; a batch under way still ends)
 *   taken                       how many of them another client holds
 *   others                      somebody has called dmaengine_get(), as async_tx does: public channels are his then
 *   no_channel                  gives none to a client that asks, and shows none in use
 *   refuse_permille             share of batches whose descriptors it does not take: the client sees EIO
 *   abort_permille              share of batches that it reports as aborted, not copied; a client that does not look
 *                               at the result takes that for success
 *   hang                        completes nothing until N is written or the channel is terminated
 *   batch_delay_ms              before each batch; one number per channel, the last one counts for the rest
 *   delay_us                    before each transfer
 *   reverse                     works on a batch from its end, and so reports the last transfer before the others
 *   skip                        completes without copying
 *   corrupt                     flips one byte in each page that it copies
 *   victim                      process whose pages skip and corrupt are for; 0: everybody's
 *   sysfs_counts                adds to memcpy_count and bytes_transferred, as few drivers do
 *   transfers, bytes            what it has copied (read only)
 *
 * A "batch" is what a client does between requesting a channel and releasing it.
 *
 * Sources: Documentation/driver-api/dmaengine/provider.rst; drivers/dma/dmaengine.c of 6.12. It must hang on a platform
 * driver: dma_async_device_register() follows dev->driver.
 */
#define pr_fmt(fmt) "softdma: " fmt
#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/dmaengine.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/rmap.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#ifndef FOLIO_MAPPING_FLAGS		/* the name up to 6.16 */
#define FOLIO_MAPPING_FLAGS PAGE_MAPPING_FLAGS
#endif

#define CHANNELS_MAX 32
#define REVERSE_PAUSE_US 100000	/* for the client to believe that all is done */
#define CORRUPT_AT 1234		/* offset in each page; anything that a test does not write by chance */

static char *driver = "ptdma";
module_param(driver, charp, 0444);
static int on_node = NUMA_NO_NODE;
module_param_named(numa_node, on_node, int, 0444);
static bool public;
module_param(public, bool, 0444);
static unsigned int refuse_permille, abort_permille;
module_param(refuse_permille, uint, 0644);
module_param(abort_permille, uint, 0644);
static unsigned int batch_delay_ms[CHANNELS_MAX], batch_delays;
module_param_array(batch_delay_ms, uint, &batch_delays, 0644);
static unsigned int delay_us;
module_param(delay_us, uint, 0644);
static bool reverse, skip, corrupt, sysfs_counts;
module_param(reverse, bool, 0644);
module_param(skip, bool, 0644);
module_param(corrupt, bool, 0644);
module_param(sysfs_counts, bool, 0644);
static bool no_channel;
module_param(no_channel, bool, 0644);
static int victim;
module_param(victim, int, 0644);

static atomic_long_t transfers, bytes;
static struct workqueue_struct *workers;
static DECLARE_WAIT_QUEUE_HEAD(woken);	/* something changed for those who hang or wait */
static bool hang;

struct descriptor {
	struct dma_async_tx_descriptor tx;
	struct list_head node;
	dma_addr_t dst, src;
	size_t len;
	bool skips, corrupts;
};

struct channel {
	struct dma_chan chan;
	unsigned int number;
	spinlock_t lock;
	struct list_head submitted, issued;
	struct work_struct work;
	bool fresh;		/* the batch's delay is still to come */
	bool terminating;
	bool refuses, aborts;	/* this batch */
	bool gone;		/* it has no files in sysfs any more */
};

struct engine {
	struct dma_device dma;
	struct platform_device *pdev;
	struct list_head node;
	bool kept;		/* the channels' own devices */
	unsigned int count;
	struct channel channels[] __counted_by(count);
};

static LIST_HEAD(engines);		/* the newest first; freed at unload only, see released() */
static DEFINE_MUTEX(plug_mutex);
static struct engine *plugged;
static struct dma_chan *held[CHANNELS_MAX];
static unsigned int channels = 4, taken;
static bool others, others_now;
static bool ready;

/* The share of batches is exact: what is not yet a whole batch is carried over. */
static bool happens(unsigned int permille, atomic_t *carry)
{
	unsigned int before = atomic_fetch_add(permille, carry);

	return before / 1000 != (before + permille) / 1000;
}

/*
 * Whether a page is mapped by the victim. Migration holds the folio's lock and a reference to its anon_vma while the
 * engine copies; of any other page nothing is known.
 */
static bool is_victims(struct folio *folio)
{
	struct anon_vma *anon_vma;
	struct task_struct *owner;
	struct rb_node *node;
	bool found = false;

	if (!folio_test_locked(folio) || !folio_test_anon(folio) || folio_test_ksm(folio))
		return false;
	anon_vma = (void *)((unsigned long)folio->mapping & ~FOLIO_MAPPING_FLAGS);
	if (!anon_vma_trylock_read(anon_vma))
		return false;
	for (node = rb_first_cached(&anon_vma->rb_root); node && !found; node = rb_next(node)) {
		struct vm_area_struct *vma = rb_entry(node, struct anon_vma_chain, rb)->vma;

		if (folio->index < vma->vm_pgoff || folio->index >= vma->vm_pgoff + vma_pages(vma))
			continue;
		rcu_read_lock();
		owner = rcu_dereference(vma->vm_mm->owner);
		found = owner && owner->tgid == victim;
		rcu_read_unlock();
	}
	anon_vma_unlock_read(anon_vma);
	return found;
}

static bool concerns(dma_addr_t src)
{
	return !victim || current->tgid == victim || is_victims(page_folio(pfn_to_page(PHYS_PFN(src))));
}

static struct channel *to_channel(struct dma_chan *chan)
{
	return container_of(chan, struct channel, chan);
}

static dma_cookie_t submit(struct dma_async_tx_descriptor *tx)
{
	struct descriptor *desc = container_of(tx, struct descriptor, tx);
	struct channel *channel = to_channel(tx->chan);
	unsigned long flags;

	spin_lock_irqsave(&channel->lock, flags);
	tx->cookie = tx->chan->cookie >= DMA_MIN_COOKIE && tx->chan->cookie < INT_MAX ? tx->chan->cookie + 1
											: DMA_MIN_COOKIE;
	tx->chan->cookie = tx->cookie;
	list_add_tail(&desc->node, &channel->submitted);
	spin_unlock_irqrestore(&channel->lock, flags);
	return tx->cookie;
}

static struct dma_async_tx_descriptor *prepare(struct dma_chan *chan, dma_addr_t dst, dma_addr_t src, size_t len,
					       unsigned long flags)
{
	struct descriptor *desc;

	if (to_channel(chan)->refuses)
		return NULL;
	desc = kzalloc(sizeof(*desc), GFP_NOWAIT | __GFP_NOWARN);
	if (!desc)
		return NULL;
	dma_async_tx_descriptor_init(&desc->tx, chan);
	desc->tx.flags = flags;
	desc->tx.tx_submit = submit;
	desc->dst = dst;
	desc->src = src;
	desc->len = len;
	/* Decided here, in the task that holds the folio's lock. */
	desc->skips = READ_ONCE(skip) && concerns(src);
	desc->corrupts = READ_ONCE(corrupt) && concerns(src);
	return &desc->tx;
}

static void issue(struct dma_chan *chan)
{
	struct channel *channel = to_channel(chan);
	unsigned long flags;

	spin_lock_irqsave(&channel->lock, flags);
	list_splice_tail_init(&channel->submitted, &channel->issued);
	spin_unlock_irqrestore(&channel->lock, flags);
	queue_work(workers, &channel->work);
}

/* Returns false when the channel was terminated meanwhile. */
static bool pause(struct channel *channel, unsigned long microseconds)
{
	ktime_t left = ns_to_ktime((u64)microseconds * NSEC_PER_USEC);

	/* A high resolution timer: the others are late by up to an eighth, and 9.9 s must end before the client's 10 s. */
	if (microseconds && microseconds < 20000)
		usleep_range(microseconds, microseconds + 20);
	else if (microseconds)
		wait_event_interruptible_hrtimeout(woken, READ_ONCE(channel->terminating), left);
	wait_event_idle(woken, !READ_ONCE(hang) || READ_ONCE(channel->terminating));
	return !READ_ONCE(channel->terminating);
}

static unsigned long batch_delay(struct channel *channel)
{
	unsigned int count = READ_ONCE(batch_delays);

	if (!channel->fresh || !count)
		return 0;
	channel->fresh = false;
	return 1000UL * batch_delay_ms[min(channel->number, count - 1)];
}

/* There is no IOMMU in front of it: a bus address is a physical one. */
static void transfer(struct channel *channel, struct descriptor *desc)
{
	u8 *dst = phys_to_virt(desc->dst);
	size_t at;

	if (channel->aborts)
		return;
	if (!desc->skips)
		memcpy(dst, phys_to_virt(desc->src), desc->len);
	for (at = CORRUPT_AT; desc->corrupts && at < desc->len; at += PAGE_SIZE)
		dst[at] ^= 0xff;
	atomic_long_inc(&transfers);
	atomic_long_add(desc->len, &bytes);
}

static void complete_one(struct channel *channel, struct descriptor *desc)
{
	struct dmaengine_result result = {
		.result = channel->aborts ? DMA_TRANS_ABORTED : DMA_TRANS_NOERROR,
		.residue = channel->aborts ? desc->len : 0,
	};
	unsigned long flags;

	spin_lock_irqsave(&channel->lock, flags);
	channel->chan.completed_cookie = desc->tx.cookie;
	if (!channel->gone && sysfs_counts) {
		this_cpu_inc(channel->chan.local->memcpy_count);
		this_cpu_add(channel->chan.local->bytes_transferred, desc->len);
	}
	spin_unlock_irqrestore(&channel->lock, flags);
	dma_descriptor_unmap(&desc->tx);
	if (desc->tx.callback_result)
		desc->tx.callback_result(desc->tx.callback_param, &result);
	else if (desc->tx.callback)
		desc->tx.callback(desc->tx.callback_param);
}

static struct descriptor *next_issued(struct channel *channel)
{
	struct descriptor *desc = NULL;
	unsigned long flags;

	spin_lock_irqsave(&channel->lock, flags);
	if (!list_empty(&channel->issued)) {
		desc = READ_ONCE(reverse) ? list_last_entry(&channel->issued, struct descriptor, node)
					  : list_first_entry(&channel->issued, struct descriptor, node);
		list_del(&desc->node);
	}
	spin_unlock_irqrestore(&channel->lock, flags);
	return desc;
}

static void work(struct work_struct *work)
{
	struct channel *channel = container_of(work, struct channel, work);
	struct descriptor *desc;

	while ((desc = next_issued(channel))) {
		if (pause(channel, batch_delay(channel)) && pause(channel, READ_ONCE(delay_us))) {
			transfer(channel, desc);
			complete_one(channel, desc);
			if (READ_ONCE(reverse) && desc->tx.callback)
				pause(channel, REVERSE_PAUSE_US);
		}
		kfree(desc);
		cond_resched();
	}
}

static enum dma_status status(struct dma_chan *chan, dma_cookie_t cookie, struct dma_tx_state *state)
{
	dma_set_tx_state(state, chan->completed_cookie, chan->cookie, 0);
	return dma_async_is_complete(cookie, chan->completed_cookie, chan->cookie);
}

static int terminate(struct dma_chan *chan)
{
	struct channel *channel = to_channel(chan);
	struct descriptor *desc, *next;
	unsigned long flags;
	LIST_HEAD(dropped);

	WRITE_ONCE(channel->terminating, true);
	spin_lock_irqsave(&channel->lock, flags);
	list_splice_init(&channel->submitted, &dropped);
	list_splice_tail_init(&channel->issued, &dropped);
	spin_unlock_irqrestore(&channel->lock, flags);
	wake_up_all(&woken);
	list_for_each_entry_safe(desc, next, &dropped, node)
		kfree(desc);
	return 0;
}

/* After this the engine writes to no memory of the client's any more. */
static void synchronize(struct dma_chan *chan)
{
	struct channel *channel = to_channel(chan);

	flush_work(&channel->work);
	WRITE_ONCE(channel->terminating, false);
}

static int begin_batch(struct dma_chan *chan)
{
	static atomic_t refuse_carry = ATOMIC_INIT(0), abort_carry = ATOMIC_INIT(0);
	struct channel *channel = to_channel(chan);

	if (channel->gone)
		return -ENXIO;	/* gone, and known to the core only because another channel is held */
	if (READ_ONCE(no_channel))
		return -EBUSY;
	chan->cookie = chan->completed_cookie = DMA_MIN_COOKIE;
	channel->fresh = true;
	channel->refuses = happens(min(refuse_permille, 1000U), &refuse_carry);
	channel->aborts = happens(min(abort_permille, 1000U), &abort_carry);
	return 1;
}

static void end_batch(struct dma_chan *chan)
{
	terminate(chan);
	synchronize(chan);
}

/*
 * The last client has let go. Until now it may have asked the core for the channel's own device, whom nobody else keeps
 * after a surprise removal. dma_release_channel() looks at the dma_device once more after this, so that is kept until
 * the module goes, which the core does not allow while a client holds a channel.
 */
static void released(struct dma_device *dma)
{
	struct engine *engine = container_of(dma, struct engine, dma);
	unsigned int i;

	for (i = 0; i < engine->count && engine->kept; i++)
		put_device(&engine->channels[i].chan.dev->device);
	put_device(dma->dev);
}

static void keep_devices(struct engine *engine)
{
	unsigned int i;

	for (i = 0; i < engine->count; i++)
		get_device(&engine->channels[i].chan.dev->device);
	engine->kept = true;
}

static int probe(struct platform_device *pdev)
{
	struct engine *engine = *(struct engine **)dev_get_platdata(&pdev->dev);
	struct dma_device *dma = &engine->dma;
	int rc;

	rc = dma_coerce_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(64));
	if (rc)
		return rc;
	dma_set_max_seg_size(&pdev->dev, UINT_MAX);
	dma->dev = get_device(&pdev->dev);
	dma_cap_set(DMA_MEMCPY, dma->cap_mask);
	if (!public)
		dma_cap_set(DMA_PRIVATE, dma->cap_mask);
	dma->device_prep_dma_memcpy = prepare;
	dma->device_issue_pending = issue;
	dma->device_tx_status = status;
	dma->device_alloc_chan_resources = begin_batch;
	dma->device_free_chan_resources = end_batch;
	dma->device_terminate_all = terminate;
	dma->device_synchronize = synchronize;
	dma->device_release = released;
	dma->directions = BIT(DMA_MEM_TO_MEM);
	dma->src_addr_widths = dma->dst_addr_widths = BIT(DMA_SLAVE_BUSWIDTH_8_BYTES);
	platform_set_drvdata(pdev, engine);
	rc = dma_async_device_register(dma);
	if (rc)
		put_device(&pdev->dev);
	return rc;
}

static void set_gone(struct engine *engine)
{
	unsigned int i;

	for (i = 0; i < engine->count; i++) {
		spin_lock_irq(&engine->channels[i].lock);
		engine->channels[i].gone = true;
		spin_unlock_irq(&engine->channels[i].lock);
	}
}

static bool none(struct dma_chan *chan, void *unused)
{
	return false;
}

/*
 * A request that meets a module on its way out takes the engine off the core's list (find_candidate() of
 * drivers/dma/dmaengine.c), and dma_device_release() takes it off once more, which is a BUG. So: let no further request
 * look at it, wait for the lock of one under way, and mend.
 */
static void leave_list(struct dma_device *dma)
{
	dma_cap_mask_t mask = dma->cap_mask;

	dma_cap_clear(DMA_MEMCPY, dma->cap_mask);
	dma_request_channel(mask, none, NULL);
	if (dma->global_node.prev == LIST_POISON2)
		INIT_LIST_HEAD(&dma->global_node);
}

static void remove(struct platform_device *pdev)
{
	struct engine *engine = platform_get_drvdata(pdev);

	set_gone(engine);	/* the core frees the per-cpu counters, and a batch may be under way */
	leave_list(&engine->dma);
	dma_async_device_unregister(&engine->dma);
}

static struct platform_driver platform_driver = {
	.probe = probe,
	.remove = remove,
	.driver = { .suppress_bind_attrs = true },
};

static struct engine *new_engine(unsigned int count)
{
	struct engine *engine = kzalloc(struct_size(engine, channels, count), GFP_KERNEL);
	unsigned int i;

	if (!engine)
		return NULL;
	engine->count = count;
	INIT_LIST_HEAD(&engine->dma.channels);
	for (i = 0; i < count; i++) {
		struct channel *channel = &engine->channels[i];

		channel->number = i;
		channel->chan.device = &engine->dma;
		spin_lock_init(&channel->lock);
		INIT_LIST_HEAD(&channel->submitted);
		INIT_LIST_HEAD(&channel->issued);
		INIT_WORK(&channel->work, work);
		list_add_tail(&channel->chan.device_node, &engine->dma.channels);
	}
	list_add(&engine->node, &engines);
	return engine;
}

static int plug(unsigned int count)
{
	struct engine *engine = new_engine(count);
	struct platform_device *pdev;
	int rc = -ENOMEM;

	if (!engine)
		return -ENOMEM;
	pdev = platform_device_alloc(driver, PLATFORM_DEVID_NONE);
	if (!pdev)
		return -ENOMEM;
	set_dev_node(&pdev->dev, on_node);
	rc = platform_device_add_data(pdev, &engine, sizeof(engine));
	if (!rc)
		rc = platform_device_add(pdev);
	if (rc) {
		platform_device_put(pdev);
		return rc;
	}
	if (!pdev->dev.driver) {	/* probe failed, the log says why */
		platform_device_unregister(pdev);
		return -ENODEV;
	}
	engine->pdev = pdev;
	keep_devices(engine);
	plugged = engine;
	return 0;
}

static bool is_ours(struct dma_chan *chan, void *engine)
{
	return chan->device == &((struct engine *)engine)->dma;
}

static void hold(unsigned int count)
{
	dma_cap_mask_t mask;
	unsigned int i;

	dma_cap_zero(mask);
	dma_cap_set(DMA_MEMCPY, mask);
	for (i = 0; i < CHANNELS_MAX; i++) {
		if (i >= count && held[i]) {
			dma_release_channel(held[i]);
			held[i] = NULL;
		} else if (i < count && !held[i] && plugged) {
			held[i] = dma_request_channel(mask, is_ours, plugged);
		}
	}
}

/* Other clients, who take channels and do nothing with them. */
static void let_clients(unsigned int count, bool get)
{
	hold(count);
	if (get && !others_now)
		dmaengine_get();
	else if (!get && others_now)
		dmaengine_put();
	others_now = get;
}

static int set_channels(unsigned int count)
{
	int rc = 0;

	let_clients(0, false);	/* the core forgets who held a channel that has gone */
	if (plugged) {
		platform_device_unregister(plugged->pdev);
		plugged = NULL;
	}
	channels = 0;
	if (count)
		rc = plug(count);
	if (!rc)
		channels = count;
	let_clients(taken, others);
	return rc;
}

static int parse_count(const char *text, unsigned int *count)
{
	int rc = kstrtouint(text, 0, count);

	return rc ?: *count > CHANNELS_MAX ? -EINVAL : 0;
}

static int channels_set(const char *text, const struct kernel_param *kp)
{
	unsigned int count;
	int rc = parse_count(text, &count);

	if (rc)
		return rc;
	mutex_lock(&plug_mutex);
	if (!ready)
		channels = count;
	else if (count != channels)
		rc = set_channels(count);
	mutex_unlock(&plug_mutex);
	return rc;
}

static int taken_set(const char *text, const struct kernel_param *kp)
{
	unsigned int count;
	int rc = parse_count(text, &count);

	if (rc)
		return rc;
	mutex_lock(&plug_mutex);
	taken = count;
	if (ready)
		let_clients(taken, others);
	mutex_unlock(&plug_mutex);
	return 0;
}

static int others_set(const char *text, const struct kernel_param *kp)
{
	int rc;

	mutex_lock(&plug_mutex);
	rc = param_set_bool(text, kp);
	if (ready)
		let_clients(taken, others);
	mutex_unlock(&plug_mutex);
	return rc;
}

static int hang_set(const char *text, const struct kernel_param *kp)
{
	int rc = param_set_bool(text, kp);

	wake_up_all(&woken);
	return rc;
}

static int long_get(char *buf, const struct kernel_param *kp)
{
	return sysfs_emit(buf, "%ld\n", atomic_long_read(kp->arg));
}

static const struct kernel_param_ops channels_ops = { .set = channels_set, .get = param_get_uint };
module_param_cb(channels, &channels_ops, &channels, 0644);
static const struct kernel_param_ops taken_ops = { .set = taken_set, .get = param_get_uint };
module_param_cb(taken, &taken_ops, &taken, 0644);
static const struct kernel_param_ops others_ops = {
	.set = others_set, .get = param_get_bool, .flags = KERNEL_PARAM_OPS_FL_NOARG
};
module_param_cb(others, &others_ops, &others, 0644);
static const struct kernel_param_ops hang_ops = {
	.set = hang_set, .get = param_get_bool, .flags = KERNEL_PARAM_OPS_FL_NOARG
};
module_param_cb(hang, &hang_ops, &hang, 0644);
static const struct kernel_param_ops long_ops = { .get = long_get };
module_param_cb(transfers, &long_ops, &transfers, 0444);
module_param_cb(bytes, &long_ops, &bytes, 0444);

static void free_engines(void)
{
	struct engine *engine, *next;

	list_for_each_entry_safe(engine, next, &engines, node)
		kfree(engine);
}

static int __init softdma_init(void)
{
	int rc;

	/* A demotion waits for it, and so memory that is wanted does. */
	workers = alloc_workqueue("softdma", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	if (!workers)
		return -ENOMEM;
	platform_driver.driver.name = driver;
	rc = platform_driver_register(&platform_driver);
	if (rc)
		goto no_driver;
	mutex_lock(&plug_mutex);
	rc = set_channels(channels);
	ready = !rc;
	mutex_unlock(&plug_mutex);
	if (!rc)
		return 0;
	platform_driver_unregister(&platform_driver);
no_driver:
	destroy_workqueue(workers);
	free_engines();
	return rc;
}

/* No client holds a channel here, our own neither: each would hold a reference to the module. */
static void __exit softdma_exit(void)
{
	taken = 0;
	others = false;
	set_channels(0);
	platform_driver_unregister(&platform_driver);
	destroy_workqueue(workers);
	free_engines();
}

module_init(softdma_init);
module_exit(softdma_exit);
MODULE_DESCRIPTION("DMA memcpy engine in software, with faults");
MODULE_LICENSE("GPL");
