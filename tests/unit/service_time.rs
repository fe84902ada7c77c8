//! Of `opm::service::time`.
use opm::service::time::*;

#[test]
fn dates_are_those_of_date_1() {
    assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
    assert_eq!(rfc3339(951_782_400_123), "2000-02-29T00:00:00.123Z");
    assert_eq!(rfc3339(1_795_340_442_000), "2026-11-22T09:40:42.000Z");
}
