//! Of `opm::service::units`.
use opm::service::units::*;

#[test]
fn sizes_are_read_in_every_unit_and_print_in_their_shortest_form() {
    for (text, bytes, shortest) in
        [("0", 0, "0"), ("1024", 1_024, "1K"), ("1536K", 1_572_864, "1536K"), ("2G", 2 << 30, "2G")]
    {
        assert_eq!(Bytes::parse(text), Ok(Bytes(bytes)), "{text}");
        assert_eq!(Bytes(bytes).to_string(), shortest);
    }
    for text in ["", "K", "-1", "+1", "1.5G", "1 G", "1m", "99999999999T"] {
        assert!(Bytes::parse(text).is_err(), "{text}");
    }
}

#[test]
fn spans_are_read_in_every_unit_and_print_in_their_shortest_form() {
    for (text, ms, shortest) in [
        ("0", 0, "0s"),
        ("1ms", 1, "1ms"),
        ("250ms", 250, "250ms"),
        ("1500ms", 1_500, "1500ms"),
        ("007s", 7_000, "7s"),
        ("10s", 10_000, "10s"),
        ("90s", 90_000, "90s"),
        ("60s", 60_000, "1m"),
        ("5m", 300_000, "5m"),
        ("90m", 5_400_000, "90m"),
        ("24h", 86_400_000, "1d"),
        ("25h", 90_000_000, "25h"),
        ("18446744073709551615ms", u64::MAX, "18446744073709551615ms"),
    ] {
        assert_eq!(Span::parse(text), Ok(Span { ms }), "{text}");
        assert_eq!(Span { ms }.to_string(), shortest);
        assert_eq!(Span::parse(shortest), Ok(Span { ms }));
    }
}

#[test]
fn spans_need_a_whole_number_and_a_unit() {
    for text in ["", "10", "s", "-1s", "+1s", "1.5s", "1 s", " 1s", "1S", "1w", "1s1s", "٣s"] {
        let error = Span::parse(text).expect_err(text);
        assert!(error.contains("bad duration") && error.contains("10s"), "{error}");
    }
    for text in ["18446744073709551616ms", "18446744073709551615s", "213503982335d"] {
        assert!(Span::parse(text).expect_err(text).contains("too long"));
    }
}

#[test]
fn what_people_see_is_rounded() {
    for (ms, text) in [
        (999, "0s"),
        (3_999, "3s"),
        (59_999, "59s"),
        (60_000, "1m"),
        (3_599_999, "59m"),
        (7_200_000, "2h"),
        (86_399_999, "23h"),
        (5 * 86_400_000, "5d"),
    ] {
        assert_eq!(human_uptime(ms), text);
    }
    for (ms, text) in [(0, "0ms"), (250, "250ms"), (1_001, "2s"), (59_500, "1m")] {
        assert_eq!(human_left(ms), text);
    }
    for (bytes, text) in [
        (0, "0b"),
        (1_023, "1023b"),
        (1_024, "1.0kb"),
        (12_897_485, "12.3mb"),
        (1_048_575, "1.0mb"),
        (1_048_576, "1.0mb"),
        (1 << 30, "1.0gb"),
        (3 << 40, "3.0tb"),
        (u64::MAX, "16777216.0tb"),
    ] {
        assert_eq!(human_bytes(bytes), text);
    }
}

#[test]
fn a_delay_is_fixed_or_a_range() {
    assert_eq!(Delay::parse("2s"), Ok(Delay { min_ms: 2_000, max_ms: 2_000 }));
    assert_eq!(Delay::parse("2s..1m"), Ok(Delay { min_ms: 2_000, max_ms: 60_000 }));
    for text in ["0s", "2s", "250ms..1m", "0s..1d"] {
        assert_eq!(Delay::parse(text).expect(text).to_string(), text);
    }
    for text in ["", "..", "2s..", "..2s", "1m..2s", "2s...1m", "2s..1m..2m", "2"] {
        assert!(Delay::parse(text).is_err(), "{text}");
    }
}
