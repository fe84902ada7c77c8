//! Of `opm::service::time`.
use opm::service::time::*;

#[test]
fn dates_are_those_of_date_1() {
    assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
    assert_eq!(rfc3339(951_782_400_123), "2000-02-29T00:00:00.123Z");
    assert_eq!(rfc3339(1_795_340_442_000), "2026-11-22T09:40:42.000Z");
}

#[test]
fn times_are_read_as_they_are_written() {
    for ms in [0, 951_782_400_123, 1_795_340_442_000, 68_169_599_999, 4_102_444_799_001] {
        assert_eq!(parse_rfc3339(rfc3339(ms).as_bytes()), Some(ms));
    }
    let ms = Some(951_782_400_120);
    for text in [
        "2000-02-29 00:00:00.12 rest",
        "2000-02-29T01:00:00.120456+01:00",
        "2000-02-28 23:00:00.12 -01:00 rest",
        "2000-02-29T00:00:00.12Z",
    ] {
        assert_eq!(parse_rfc3339(text.as_bytes()), ms, "{text}");
    }
    for text in
        ["", "2000-02-29", "2000-02-29T00:00", "x000-02-29T00:00:00Z", "0000-01-01T00:00:00"]
    {
        assert_eq!(parse_rfc3339(text.as_bytes()), None, "{text}");
    }
}
