//! Time zones.
use opm::sys::zone::{is_known, with};

#[test]
fn a_zone_that_says_itself_what_it_is_needs_no_file() {
    let (winter, summer) = (1_768_000_000, 1_783_000_000);
    let offsets = with(Some("CET-1CEST,M3.5.0,M10.5.0/3"), |at| [at(winter), at(summer)]);
    assert_eq!(offsets, [3600, 7200]);
    assert_eq!(with(Some("UTC"), |at| at(winter)), 0);
    assert!(is_known("UTC") && is_known("EST5EDT") && !is_known("Europe/Nowhere"));
}
