//! Of `cli::start`: compiled with the library, for it uses what is private there.
use super::*;

#[test]
fn only_a_word_can_be_a_program() {
    for word in ["web", "server.js", "node a.js b*", "a b,c", "./x", "a,,b", "seq 1,2", "all"] {
        assert!(!names_services(word), "{word}");
    }
    for services in ["7", "web,api", "api-*", "web?", "1, 2"] {
        assert!(names_services(services), "{services}");
    }
}
