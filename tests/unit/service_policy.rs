//! Of `opm::service::policy`.
use opm::service::policy::*;
use opm::service::units::Delay;

const FIXED: Delay = Delay { min_ms: 2_000, max_ms: 2_000 };
const RANGE: Delay = Delay { min_ms: 2_000, max_ms: 60_000 };

#[test]
fn test_restart_cooldown_remaining_none_when_never_attempted() {
    assert_eq!(restart_cooldown_remaining_secs(None, 2_000, 5), None);
    assert!(!is_in_restart_cooldown(None, 2_000, 5));
}

#[test]
fn test_restart_cooldown_remaining_when_recent_attempt_exists() {
    assert_eq!(restart_cooldown_remaining_secs(Some(1_000), 2_000, 1_500), Some(2));
    assert!(is_in_restart_cooldown(Some(1_000), 2_000, 2_999));
}

#[test]
fn test_restart_cooldown_expired_after_delay() {
    assert_eq!(restart_cooldown_remaining_secs(Some(1_000), 2_000, 3_000), None);
    assert!(!is_in_restart_cooldown(Some(1_000), 2_000, 3_000));
}

#[test]
fn restart_cooldown_doubles_up_to_its_bound_only_if_it_is_a_range() {
    let delays = |delay| [1, 2, 3, 9, u32::MAX].map(|n| restart_cooldown_delay_secs(delay, n));
    assert_eq!(delays(FIXED), [2; 5]);
    assert_eq!(delays(RANGE), [2, 4, 8, 60, 60]);
}
