//! Schedules.
use opm::service::cron::Cron;
use opm::service::time::rfc3339;

/// UTC+1, and UTC+2 from 2026-03-29T01:00Z to 2026-10-25T01:00Z.
fn berlin(at: i64) -> i64 {
    if (1_774_746_000..1_792_890_000).contains(&at) { 7200 } else { 3600 }
}

/// The next times after one of them, as UTC.
fn times(text: &str, after: i64, count: usize, zone: fn(i64) -> i64) -> Vec<String> {
    let cron = Cron::parse(text).unwrap();
    let next = |at: &i64| cron.next(*at, zone);
    let times = std::iter::successors(next(&after), next).take(count);
    let text = |at| rfc3339(u64::try_from(at).unwrap() * 1000);
    times.map(|at| text(at)[..16].to_owned()).collect()
}

#[test]
fn fields_names_steps_and_words_are_read() {
    let utc = |_| 0;
    let begin = 1_767_225_600; // Thursday, 2026-01-01
    for (text, expected) in [
        ("* * * * *", ["2026-01-01T00:01", "2026-01-01T00:02"]),
        ("*/20 * * * * *", ["2026-01-01T00:00", "2026-01-01T00:00"]),
        ("0 3 * * *", ["2026-01-01T03:00", "2026-01-02T03:00"]),
        ("30/15 4 * * *", ["2026-01-01T04:30", "2026-01-01T04:45"]),
        ("0 0 * * mon-FRI", ["2026-01-02T00:00", "2026-01-05T00:00"]),
        ("0 0 * * 7", ["2026-01-04T00:00", "2026-01-11T00:00"]),
        ("0 0 13 * 5", ["2026-01-02T00:00", "2026-01-09T00:00"]),
        ("5,10-12/2 0 29 feb ?", ["2028-02-29T00:05", "2028-02-29T00:10"]),
        ("@weekly", ["2026-01-04T00:00", "2026-01-11T00:00"]),
        ("TZ=Europe/Berlin @Yearly", ["2027-01-01T00:00", "2028-01-01T00:00"]),
    ] {
        assert_eq!(times(text, begin, 2, utc), expected, "{text}");
        assert_eq!(Cron::parse(text).unwrap().to_string(), text);
    }
    assert_eq!(Cron::parse("TZ=Europe/Berlin @daily").unwrap().zone(), Some("Europe/Berlin"));
}

#[test]
fn what_is_no_schedule_is_said_with_its_reason() {
    for (text, reason) in [
        ("", "it has 0 fields"),
        ("* * * *", "it has 4 fields"),
        ("@reboot", "it has 1 field;"),
        ("60 * * * *", "\"60\" is no minute"),
        ("* 5-3 * * *", "\"5-3\" is no hour"),
        ("* * 0 * *", "\"0\" is no day of the month"),
        ("* * * foo *", "\"foo\" is no month"),
        ("*/0 * * * *", "\"*/0\" is no minute"),
        ("+1 * * * *", "\"+1\" is no minute"),
        (", * * * *", "\",\" is no minute"),
        ("0 0 30 2 *", "there is no such day"),
    ] {
        let error = Cron::parse(text).unwrap_err();
        assert!(error.contains(reason) && error.contains("@daily"), "{error}");
    }
}

#[test]
fn what_falls_into_a_gap_is_due_once_when_it_ends() {
    let before = 1_774_738_800; // 2026-03-28T23:00Z
    let due = ["2026-03-29T01:00", "2026-03-30T00:30"];
    assert_eq!(times("30 2 * * *", before, 2, berlin), due);
    assert_eq!(times("0,20,40 2 * * *", before, 2, berlin)[0], due[0]);
    let due = ["2026-03-29T00:30", "2026-03-29T01:30", "2026-03-29T02:30"];
    assert_eq!(times("30 * * * *", before + 4000, 3, berlin), due);
}

#[test]
fn what_comes_twice_is_due_at_the_first_time_only() {
    let before = 1_792_884_600; // 2026-10-24T23:30Z
    let due = ["2026-10-25T00:30", "2026-10-26T01:30"];
    assert_eq!(times("30 2 * * *", before, 2, berlin), due);
    // Also for whoever asks in between.
    assert_eq!(times("30 2 * * *", 1_792_890_600, 1, berlin), due[1..]);
    let due = ["2026-10-25T00:30", "2026-10-25T01:30", "2026-10-25T02:30"];
    assert_eq!(times("30 * * * *", before, 3, berlin), due);
    let due = ["2026-10-25T00:50", "2026-10-25T02:00"];
    assert_eq!(times("0,50 2,3 * * *", 1_792_888_800, 2, berlin), due);
}
