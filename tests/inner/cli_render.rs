//! Of `cli::render`: compiled with the library, for it uses what is private there.
use super::*;

fn event_of(event: &str) -> Event {
    Event {
        at: "2026-01-02T03:04:05.006Z".into(),
        event: event.into(),
        service: "web".into(),
        id: 0,
        generation: 7,
        pid: Some(12),
        code: None,
        signal: None,
        by: None,
        oom: false,
        reason: None,
    }
}

#[test]
fn an_event_is_one_line_whatever_is_in_it() {
    let mut spawned = event_of("spawned");
    spawned.reason = Some("two\nlines".into());
    assert_eq!(
        event(&spawned, Look { width: None, colour: false, boxed: false }),
        "2026-01-02T03:04:05.006Z spawned  web id=0 generation=7 pid=12: two\\nlines"
    );
}

#[test]
fn variables_of_one_service_can_be_read_back_by_a_shell_of_several_too() {
    let one = ("web".to_owned(), vec![("A".to_owned(), "1".to_owned())]);
    assert_eq!(env(std::slice::from_ref(&one)), "A=1\n");
    assert_eq!(env(&[one.clone(), one]), "# web\nA=1\n# web\nA=1\n");
}
