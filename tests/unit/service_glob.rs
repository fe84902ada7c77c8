//! Patterns of paths.
use opm::service::glob::means;

#[test]
fn a_pattern_means_a_name_anywhere_or_a_path_and_what_is_below() {
    for (pattern, path) in [
        ("node_modules", "a/node_modules/b/c.js"),
        ("*.log", "logs/web.log"),
        ("dist/", "dist/a"),
        ("./src/*.tmp", "src/a.tmp"),
        ("src/**/test", "src/test/x"),
        ("src/**/test", "src/a/b/test"),
        ("**/*.map", "a.map"),
        ("build/**", "build"),
        ("/srv/**/cache", "/srv/web/cache/1"),
        ("**/**/a?c/**", "x/abc/y"),
    ] {
        assert!(means(pattern, path), "{pattern} {path}");
    }
    for (pattern, path) in [
        ("node_modules", "a/node_module"),
        ("src/*.tmp", "src/a/b.tmp"),
        ("src/*.tmp", "a/src/b.tmp"),
        ("src/**/test", "src"),
        ("a/b/c", "a/b"),
        ("", "a"),
    ] {
        assert!(!means(pattern, path), "{pattern} {path}");
    }
}
