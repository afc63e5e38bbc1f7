//! What needs no server: addresses, redirects, validators. The rest is among the end-to-end tests.

use ureq::http::Response;

use super::*;

fn answer(headers: &[(&str, &str)]) -> Response<Body> {
    let mut response = Response::builder().status(200);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Body::builder().data("")).unwrap()
}

#[test]
fn addresses_lose_credentials_and_fragment_and_are_escaped() {
    for (url, want, header) in [
        ("http://h", "http://h/", None),
        ("https://u:p%3Aw@h:1/a?b=c#d", "https://h:1/a?b=c", Some("Basic dTpwOnc=")),
        ("http://token@h/a b/ä", "http://h/a%20b/%C3%A4", Some("Basic dG9rZW46")),
        ("http://h/%2F%zz", "http://h/%2F%zz", None),
    ] {
        let (uri, authorization) = target(url).unwrap();
        assert_eq!((uri.to_string().as_str(), authorization.as_deref()), (want, header), "{url}");
    }
    for bad in ["h/x", "http://", "http://a b/"] {
        assert!(matches!(target(bad), Err(RemoteError::NotUrl(_))), "{bad}");
    }
}

#[test]
fn redirects_never_lead_to_less() {
    for (from, to, want) in [
        ("https://h/a/b", "c", Ok("https://h/a/c")),
        ("https://h/a", "//other/x", Ok("https://other/x")),
        ("http://h/a", "https://h/b", Ok("https://h/b")),
        ("https://h/a", "https://u:p@h/b", Ok("https://h/b")),
        ("http://127.0.0.1/a", "http://localhost:1/b", Ok("http://localhost:1/b")),
        ("https://h/a", "http://h/a", Err("it gives up TLS")),
        ("https://h/a", "https://127.0.0.1/a", Err("it leads to this machine")),
        ("https://h/a", "https://[::1]/a", Err("it leads to this machine")),
        ("https://h/a", "file:///etc/passwd", Err("only http and https are spoken")),
        ("https://h/a", "gopher:x", Err("only http and https are spoken")),
        ("https://h/a", "https://", Err("it is no address")),
    ] {
        let got = redirect(&from.parse().unwrap(), &answer(&[("location", to)])).map(|u| u.to_string());
        match (got, want) {
            (Ok(got), Ok(want)) => assert_eq!(got, want, "{from} {to}"),
            (Err(RemoteError::Redirect { why, .. }), Err(want)) => assert_eq!(why, want, "{from} {to}"),
            (got, want) => panic!("{from} {to}: {got:?} instead of {want:?}"),
        }
    }
}

#[test]
fn a_date_proves_something_a_minute_later_only() {
    let (modified, soon, later) = ("Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:59 GMT", "Wed, 21 Oct 2015 07:29:00 GMT");
    let since = Some(("if-modified-since".to_string(), modified.to_string()));
    for (headers, want) in [
        (vec![("etag", "W/\"x\""), ("last-modified", modified), ("date", later)], Some(("if-none-match".into(), "W/\"x\"".into()))),
        (vec![("last-modified", modified), ("date", later)], since),
        (vec![("last-modified", modified), ("date", soon)], None),
        (vec![("last-modified", modified)], None),
        (vec![("last-modified", "yesterday"), ("date", later)], None),
        (vec![], None),
    ] {
        assert_eq!(validator_of(&answer(&headers)), want, "{headers:?}");
    }
}
