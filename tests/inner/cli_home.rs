//! Of `cli::home`: compiled with the library, for it uses what is private there.
use super::*;

#[test]
fn the_home_is_chosen_as_the_contract_says() {
    let at = |own: Option<&str>, home: Option<&str>, first, root| {
        choose(own.map(Into::into), home.map(Into::into), first, root)
            .map(|p| p.to_str().unwrap().to_owned())
    };
    assert_eq!(at(Some("/a"), Some("/b"), true, true).as_deref(), Some("/a"));
    assert_eq!(at(None, Some("/b"), false, true).as_deref(), Some("/b/.opm"));
    assert_eq!(at(None, Some("/b"), true, true).as_deref(), Some("/run/opm"));
    assert_eq!(at(None, None, false, true).as_deref(), Some("/run/opm"));
    assert_eq!(at(None, None, false, false), None);
}
