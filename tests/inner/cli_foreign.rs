//! Of `cli::program`: compiled with the library, for it uses what is private there.
use super::*;

#[test]
fn what_others_read_is_told_from_programs() {
    for path in ["./a/pm2.config.ts", "X.YML", "a.service"] {
        assert!(refuse_foreign(path).unwrap_err().text.starts_with(path), "{path}");
    }
    for path in ["config.js", "ecosystem.js", "procfile-server", "app.json", "yaml", "a.yml/b"] {
        assert!(refuse_foreign(path).is_ok(), "{path}");
    }
}
