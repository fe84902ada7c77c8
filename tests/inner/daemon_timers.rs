//! Of `daemon::timers`: compiled with the library, for it uses what is private there.
use super::*;

#[test]
fn a_timer_is_due_once_and_for_its_last_time_only() {
    let mut timers = Timers::default();
    timers.set(Timer::Machine(1), Some(50));
    timers.set(Timer::Machine(2), Some(20));
    timers.set(Timer::Machine(1), Some(10));
    timers.set(Timer::Ledger, Some(15));
    timers.set(Timer::Ledger, None);
    assert_eq!(timers.next(), Some(10));
    assert_eq!(timers.pop(9), None);
    let due: Vec<Timer> = std::iter::from_fn(|| timers.pop(99)).collect();
    assert_eq!(due, [Timer::Machine(1), Timer::Machine(2)]);
    assert_eq!(timers.next(), None);
}
