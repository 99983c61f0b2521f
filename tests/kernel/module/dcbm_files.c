// SPDX-License-Identifier: GPL-2.0
/*
 * The control files: V5's are attributes of /sys/module/dcbm itself, V6's are module parameters.
 *
 * What follows from that is not written here but is the kernel's own doing: V6's files share one lock, so that reads
 * block as well while a turn-off waits (kernel/params.c), and can be given at load; V5's do neither.
 *
 * Sources: RFC v5 of 28 April 2026, 6/7; RFC v6 of 30 June 2026, 4/5; names of the reasons:
 * include/trace/events/migrate.h (not the MR_ identifiers).
 */
#include <linux/kstrtox.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#include "dcbm.h"

static const char * const reason_names[] = {
	[MR_COMPACTION] = "compaction",
	[MR_MEMORY_FAILURE] = "memory_failure",
	[MR_MEMORY_HOTPLUG] = "memory_hotplug",
	[MR_SYSCALL] = "syscall_or_cpuset",
	[MR_MEMPOLICY_MBIND] = "mempolicy_mbind",
	[MR_NUMA_MISPLACED] = "numa_misplaced",
	[MR_CONTIG_RANGE] = "contig_range",
	[MR_LONGTERM_PIN] = "longterm_pin",
	[MR_DEMOTION] = "demotion",
	[MR_DAMON] = "damon",
};
static_assert(ARRAY_SIZE(reason_names) == MR_TYPES);

const char *dcbm_reason_name(int reason)
{
	return reason_names[reason];
}

static int parse_channels(const char *text, unsigned int *channels)
{
	int rc = kstrtouint(text, 0, channels);

	if (rc)
		return rc;
	return *channels < 1 || *channels > DCBM_CHANNELS_MAX ? -EINVAL : 0;
}

#ifdef DCBM_V5

/* Any write resets a counter, whatever it says. A bad value is refused before anything is waited for. */
static ssize_t offloading_show(struct module_attribute *attr, struct module_kobject *mk, char *buf)
{
	return sysfs_emit(buf, "%d\n", dcbm_offloading());
}

static ssize_t offloading_store(struct module_attribute *attr, struct module_kobject *mk, const char *buf, size_t len)
{
	bool on;
	int rc = kstrtobool(buf, &on);

	if (!rc)
		rc = dcbm_set_offloading(on);
	return rc ?: len;
}

static ssize_t nr_dma_chan_show(struct module_attribute *attr, struct module_kobject *mk, char *buf)
{
	return sysfs_emit(buf, "%u\n", dcbm_nr_dma_chan);
}

static ssize_t nr_dma_chan_store(struct module_attribute *attr, struct module_kobject *mk, const char *buf, size_t len)
{
	unsigned int channels;
	int rc = parse_channels(buf, &channels);

	if (!rc)
		dcbm_set_channels(channels);
	return rc ?: len;
}

#define COUNTER(name)											\
static ssize_t name##_show(struct module_attribute *attr, struct module_kobject *mk, char *buf)		\
{													\
	return sysfs_emit(buf, "%lu\n", atomic_long_read(&dcbm_##name));				\
}													\
static ssize_t name##_store(struct module_attribute *attr, struct module_kobject *mk, const char *buf,	\
			    size_t len)									\
{													\
	atomic_long_set(&dcbm_##name, 0);								\
	return len;											\
}													\
static struct module_attribute name##_file = __ATTR_RW(name)

COUNTER(folios_migrated);
COUNTER(folios_failures);
static struct module_attribute offloading_file = __ATTR_RW(offloading);
static struct module_attribute nr_dma_chan_file = __ATTR_RW(nr_dma_chan);

static const struct attribute *files[] = {
	&offloading_file.attr, &nr_dma_chan_file.attr, &folios_migrated_file.attr, &folios_failures_file.attr, NULL
};

int dcbm_files_create(void)
{
	return sysfs_create_files(&THIS_MODULE->mkobj.kobj, files);
}

void dcbm_files_remove(void)
{
	sysfs_remove_files(&THIS_MODULE->mkobj.kobj, files);
}

#else

static int offloading_set(const char *text, const struct kernel_param *kp)
{
	bool on;
	int rc = kstrtobool(text, &on);

	return rc ?: dcbm_set_offloading(on);
}

static int offloading_get(char *buf, const struct kernel_param *kp)
{
	return sysfs_emit(buf, "%d\n", dcbm_offloading());
}

static int nr_dma_chan_set(const char *text, const struct kernel_param *kp)
{
	unsigned int channels;
	int rc = parse_channels(text, &channels);

	if (!rc)
		dcbm_set_channels(channels);
	return rc;
}

static int nr_dma_chan_get(char *buf, const struct kernel_param *kp)
{
	return sysfs_emit(buf, "%u\n", dcbm_nr_dma_chan);
}

/* Tokens are handled from left to right; empty ones are skipped, so that an empty line means none. */
static int parse_reason_names(char *text, unsigned long *mask)
{
	unsigned long found = 0;
	char *token;
	int reason;

	while ((token = strsep(&text, ","))) {
		token = strim(token);
		if (!*token)
			continue;
		reason = match_string(reason_names, MR_TYPES, token);
		if (reason >= 0)
			found |= BIT(reason);
		else if (!strcmp(token, "all"))
			found = DCBM_ALL_REASONS;
		else if (!strcmp(token, "none"))
			found = 0;
		else
			return -EINVAL;
	}
	*mask = found;
	return 0;
}

static int reason_mask_set(const char *text, const struct kernel_param *kp)
{
	unsigned long mask;
	char *names;
	int rc = 0;

	if (kstrtoul(text, 0, &mask)) {	/* an overflow too is taken for a name, and is none */
		names = kstrdup(text, GFP_KERNEL);
		if (!names)
			return -ENOMEM;
		rc = parse_reason_names(names, &mask);
		kfree(names);
	}
	if (!rc)
		WRITE_ONCE(dcbm_reason_mask, mask & DCBM_ALL_REASONS);
	return rc;
}

static int reason_mask_get(char *buf, const struct kernel_param *kp)
{
	unsigned long mask = dcbm_reason_mask;
	int reason, n = 0;

	for_each_set_bit(reason, &mask, MR_TYPES)
		n += sysfs_emit_at(buf, n, "%s%s", n ? "," : "", reason_names[reason]);
	return n + sysfs_emit_at(buf, n, n ? "\n" : "none\n");
}

#define COUNTER(name)											\
static int name##_get(char *buf, const struct kernel_param *kp)						\
{													\
	return sysfs_emit(buf, "%ld\n", atomic_long_read(&dcbm_##name));				\
}													\
static int name##_set(const char *text, const struct kernel_param *kp)					\
{													\
	atomic_long_set(&dcbm_##name, 0);								\
	return 0;											\
}													\
PARAMETER(name)

#define PARAMETER(name)											\
static const struct kernel_param_ops name##_ops = { .set = name##_set, .get = name##_get };		\
module_param_cb(name, &name##_ops, NULL, 0644)

PARAMETER(offloading);
PARAMETER(nr_dma_chan);
PARAMETER(reason_mask);
COUNTER(folios_migrated);
COUNTER(folios_failures);

/* The module loader makes parameters and takes them away. */
int dcbm_files_create(void)
{
	return 0;
}

void dcbm_files_remove(void)
{
}
#endif
