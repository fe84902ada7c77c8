//! Of `run::messages`: compiled with the library, for it uses what is private there.
use super::*;

fn event(kind: &str, code: Option<i32>) -> Event {
    let reason = (kind == "waiting").then(|| "restart in 2s".to_owned());
    let (at, event, service) = (String::new(), kind.to_owned(), "w".to_owned());
    let (pid, signal, by) = (Some(7), None, None);
    Event { at, event, service, id: 0, generation: 1, pid, code, signal, by, oom: false, reason }
}

#[test]
fn an_exit_and_what_comes_of_it_are_one_line_if_they_are_known_together() {
    let mut messages = Messages::default();
    let none = || std::iter::empty();
    messages.hear(event("spawned", None), true);
    assert!(messages.lines(none()).is_empty(), "a first start is no news");
    messages.hear(event("exited", Some(3)), true);
    messages.hear(event("waiting", None), true);
    assert_eq!(messages.lines(none()), ["w: exited with code 3, restarting in 2s"]);
    messages.hear(event("spawned", None), true);
    messages.hear(event("exited", Some(4)), true);
    assert_eq!(messages.lines(none()), ["w: restarted (pid 7)", "w: exited with code 4"]);
    messages.hear(event("exited", Some(5)), true);
    messages.say_end("w", "ended for good, exit code 5");
    assert_eq!(messages.lines(none()), ["w: ended for good, exit code 5"]);
}

#[test]
fn a_kill_is_said_once_for_each_incarnation() {
    let mut messages = Messages::default();
    let killing = |generations: &'static [u64]| generations.iter().map(|of| (*of, "w"));
    assert_eq!(messages.lines(killing(&[4])).len(), 1);
    assert_eq!(messages.lines(killing(&[4])).len(), 0);
    assert_eq!(messages.lines(killing(&[9])).len(), 1);
}
