//! Restarts, cooldown, escalation: pure functions of (policy, history, now).
//!
//! Times are milliseconds on one monotonic clock; names that end in `_secs` give whole seconds,
//! rounded up, as people read them.
use super::units::Delay;

/// From one SIGKILL round to the next, while a tree resists.
pub const KILL_INTERVAL_MS: u64 = 1_000;
/// How long what a leader left behind that ended well may take to end by itself: what lives longer
/// was put into the background.
pub const LINGER_MS: u64 = 2_000;
/// The cooldown after the machine itself had no room for a process (EAGAIN, ENOMEM, EMFILE).
pub const CROWDED_DELAY_MS: u64 = 1_000;

/// The wait after the `deaths`-th quick death in a row (the first is 1): the delay's lower bound,
/// doubled for each further death, up to its upper bound.
pub fn restart_cooldown_delay_ms(delay: Delay, deaths: u32) -> u64 {
    let doublings = deaths.saturating_sub(1).min(63);
    delay.min_ms.saturating_mul(1 << doublings).min(delay.max_ms).max(delay.min_ms)
}

/// [`restart_cooldown_delay_ms`] in whole seconds, rounded up.
pub fn restart_cooldown_delay_secs(delay: Delay, deaths: u32) -> u64 {
    restart_cooldown_delay_ms(delay, deaths).div_ceil(1_000)
}

/// Whole seconds, rounded up, until a restart is due; none if it is due or none was attempted.
pub fn restart_cooldown_remaining_secs(
    last_attempt_ms: Option<u64>,
    delay_ms: u64,
    now_ms: u64,
) -> Option<u64> {
    let until = last_attempt_ms?.saturating_add(delay_ms);
    (until > now_ms).then(|| (until - now_ms).div_ceil(1_000))
}

/// Whether a restart must still wait.
pub fn is_in_restart_cooldown(last_attempt_ms: Option<u64>, delay_ms: u64, now_ms: u64) -> bool {
    restart_cooldown_remaining_secs(last_attempt_ms, delay_ms, now_ms).is_some()
}
