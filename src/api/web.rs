//! `--http ADDR:PORT`: what can be asked, to look at from a browser, and a page that shows it.
//!
//! Invariants: nothing can be changed this way. No page of another site can read it: it is answered only where it was asked
//! for by address or as localhost, so that no name of somebody else's leads here (DNS rebinding), and nothing allows a
//! browser to hand an answer on.

use super::answer::{Answer, Refusal, text};
use super::request::Request;
use super::server::Respond;
use super::share::Share;
use hyper::Method;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use std::net::IpAddr;

const PAGE: &str = include_str!("page.html");

/// The page is whole in itself: nothing comes from elsewhere, and it sends nothing there.
const POLICY: &str = "default-src 'none'; connect-src 'self'; img-src data:; style-src 'unsafe-inline'; \
                      script-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// What a browser is shown of a share.
pub struct Web(pub Share);

impl Respond for Web {
    async fn respond(&self, asked: Request) -> Answer {
        if !asked.host.as_deref().is_some_and(is_plain) {
            return Err(Refusal::forbidden("ask by address, or as localhost"));
        }
        if asked.method != Method::GET {
            return Err(Refusal::method(
                "GET",
                "nothing can be changed here; the control socket is for that",
            ));
        }
        let mut answer = match asked.path.as_str() {
            "/" => text("text/html; charset=utf-8", PAGE),
            _ => self.0.respond(asked).await?,
        };
        let headers = answer.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Ok(answer)
    }
}

/// Whether `host`, as a client says it, is nobody's name but this machine's.
fn is_plain(host: &str) -> bool {
    let port = |(_, port): &(&str, &str)| port.bytes().all(|b| b.is_ascii_digit());
    let name = host.rsplit_once(':').filter(port).map_or(host, |(name, _)| name);
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_lead_here() {
        for host in [
            "localhost",
            "LocalHost:7380",
            "127.0.0.1",
            "127.0.0.1:7380",
            "[::1]:7380",
            "[::1]",
            "10.0.0.2:1",
        ] {
            assert!(is_plain(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:7380",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            ":80",
        ] {
            assert!(!is_plain(host), "{host}");
        }
    }

    #[test]
    fn the_page_is_whole_in_itself() {
        for elsewhere in ["http://", "https://", "src=", "url(", "@import", "innerHTML"] {
            let found = PAGE.replace("http://www.w3.org/2000/svg", "").contains(elsewhere);
            assert!(!found, "{elsewhere}");
        }
    }
}
