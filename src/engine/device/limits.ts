/** Most steps that one prefill call takes on a device. */
export const DEVICE_PREFILL_STEPS = 1024;
/** Local patches that are scored side by side on a device. */
export const MAX_SCORING_ROWS = 256;
