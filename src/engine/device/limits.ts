/** Most steps that one prefill call takes on a device. */
export const DEVICE_PREFILL_STEPS = 1024;
/** Local patches that are scored side by side on a device. */
export const MAX_SCORING_ROWS = 256;
/**
 * What the tables of constraints leave free: the driver needs memory for launching what was recorded, and where it gets none, all that
 * runs fails (seen when a table had taken most of the last 2.6 MiB, not with those 2.6).
 */
export const LAUNCH_BYTES = 32 * 2 ** 20;
