//! Of `opm::sys::token`.
use mio::Token as Number;
use opm::service::probe::Question;
use opm::sys::Wake;
use opm::sys::token::Token;

#[test]
fn each_token_is_read_back_from_its_number() {
    let all = [
        Token::Signals,
        Token::Listener,
        Token::Removals,
        Token::Clock,
        Token::Logs,
        Token::Notify,
        Token::Client(u32::MAX),
        Token::Check(Question::Ready, 1),
        Token::Check(Question::Health, 2),
        Token::Pump(3),
        Token::Files(0),
        Token::Wake(Wake::Leader(4)),
        Token::Wake(Wake::Launch(5)),
        Token::Wake(Wake::Member(6)),
    ];
    for token in all {
        assert_eq!(Token::of(token.into()), Some(token));
    }
    assert_eq!(Token::of(Number(usize::MAX)), None);
}
