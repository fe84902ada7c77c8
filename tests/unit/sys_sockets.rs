//! Sockets that are held for services.
use opm::service::listen::Listen;
use opm::sys::sockets::{Sockets, holder, of_process};
use opm::sys::{Errno, own_pid, pidfd};

fn listen(text: &str) -> Vec<Listen> {
    vec![Listen::parse(text).unwrap()]
}

/// A port that nobody has now.
fn free_port() -> u16 {
    let any = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    any.local_addr().unwrap().port()
}

#[test]
fn a_busy_address_is_refused_and_its_holder_found() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let wanted = listen(&taken.local_addr().unwrap().to_string());
    let mut sockets = Sockets::default();
    assert_eq!(sockets.open("web", &wanted, false), Err((0, Errno::ADDRINUSE)));
    assert_eq!(holder(&wanted[0].address), Some(own_pid()));
}

#[test]
fn what_is_open_is_found_again_by_its_address_and_by_no_other_group() {
    let path = std::env::temp_dir().join(format!("opm-sockets-{}", std::process::id()));
    let path = path.to_str().unwrap();
    for text in [format!("127.0.0.1:{}", free_port()), format!("unix:{path}")] {
        let wanted = listen(&text);
        let mut sockets = Sockets::default();
        assert_eq!(sockets.open("web", &wanted, false), Ok(()));
        let number = sockets.numbers("web", &wanted, true);
        assert_eq!((number.len(), sockets.numbers("api", &wanted, true).len()), (1, 0));
        assert_eq!(sockets.open("api", &wanted, false), Err((0, Errno::ADDRINUSE)));
        let own = pidfd::open(own_pid()).unwrap();
        let (mut next, mut found) = (Sockets::default(), of_process(own_pid(), &own));
        next.claim("web", &wanted, &mut found);
        assert!(!next.lacks("web", &wanted) && sockets.numbers("web", &wanted, false).len() == 1);
        sockets.retain(|_, _| false);
        next.retain(|_, _| false);
        assert!(!std::path::Path::new(path).exists());
    }
}

#[test]
fn a_later_daemon_binds_beside_what_it_cannot_take() {
    let wanted = listen(&format!("127.0.0.1:{}", free_port()));
    let (mut first, mut second) = (Sockets::default(), Sockets::default());
    assert_eq!(first.open("web", &wanted, false), Ok(()));
    assert_eq!(second.open("web", &wanted, true), Ok(()));
}
