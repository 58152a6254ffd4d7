//! What there is to ask, and which method of [`Share`] answers.
//!
//! Invariant: nothing is done before all parameters were read and none is left over.

use super::answer::{Answer, Refusal};
use super::request::Request;
use super::server::Respond;
use super::share::{Order, Share};
use std::time::Duration;

/// Every route: its method and its path. `N` is a number. `GET` changes nothing.
pub const ROUTES: &[(&str, &str)] = &[
    ("GET", "/status"),
    ("GET", "/files"),
    ("GET", "/conflicts"),
    ("POST", "/resolve"),
    ("GET", "/trash"),
    ("POST", "/trash/restore"),
    ("POST", "/verify"),
    ("GET", "/verify/N"),
    ("POST", "/pin"),
    ("POST", "/unpin"),
    ("POST", "/fetch"),
    ("POST", "/free"),
    ("POST", "/flush"),
    ("POST", "/resume"),
    ("POST", "/bwlimit"),
    ("POST", "/unmount"),
    ("GET", "/wait"),
    ("GET", "/events"),
    ("GET", "/metrics"),
];

impl Respond for Share {
    async fn respond(&self, mut asked: Request) -> Answer {
        let Some((method, route)) = ROUTES.iter().find(|route| leads(route, &asked)) else {
            return Err(astray(&asked));
        };
        match (*method, *route) {
            ("POST", "/resolve") => {
                let (name, keep) = (asked.required("name")?, asked.required("keep")?);
                asked.done()?;
                self.resolve(name, keep).await
            }
            ("POST", "/trash/restore") => {
                let (what, name) = (asked.required("what")?, asked.optional("as")?);
                asked.done()?;
                self.restore(what, name).await
            }
            ("POST", "/verify") => {
                let repair = asked.optional("repair")?.unwrap_or(false);
                asked.done()?;
                self.verify(repair).await
            }
            ("GET", "/verify/N") => {
                let run = asked.path.rsplit('/').next().and_then(|n| n.parse().ok());
                asked.done()?;
                self.verified(run.ok_or_else(|| astray(&asked))?).await
            }
            ("POST", order @ ("/pin" | "/unpin" | "/fetch" | "/free")) => {
                let name = asked.required("name")?;
                asked.done()?;
                let order = match order {
                    "/pin" => Order::Pin,
                    "/unpin" => Order::Unpin,
                    "/fetch" => Order::Fetch,
                    _ => Order::Free,
                };
                self.hold(order, name).await
            }
            ("POST", "/flush") => {
                let timeout = asked.optional("timeout_ms")?.map(Duration::from_millis);
                asked.done()?;
                self.flush(timeout).await
            }
            ("POST", "/bwlimit") => {
                let rate = asked.required("rate")?;
                asked.done()?;
                self.limit(rate)
            }
            ("GET", "/events") => {
                let (after, follow) = (asked.optional("after")?.or(asked.since), asked.optional("follow")?);
                asked.done()?;
                self.events(after, follow.unwrap_or(true)).await
            }
            plain => {
                asked.done()?;
                match plain {
                    ("GET", "/status") => self.status().await,
                    ("GET", "/files") => self.files().await,
                    ("GET", "/conflicts") => self.conflicts().await,
                    ("GET", "/trash") => self.trash().await,
                    ("POST", "/resume") => self.resume().await,
                    ("POST", "/unmount") => self.unmount().await,
                    ("GET", "/metrics") => self.metrics().await,
                    ("GET", "/wait") => self.wait().await,
                    _ => Err(astray(&asked)),
                }
            }
        }
    }
}

fn leads((method, route): &(&str, &str), asked: &Request) -> bool {
    asked.method == *method && fits(route, &asked.path)
}

fn fits(route: &str, path: &str) -> bool {
    match route.strip_suffix('N') {
        Some(stem) => path.strip_prefix(stem).is_some_and(|n| n.parse::<u64>().is_ok()),
        None => route == path,
    }
}

fn astray(asked: &Request) -> Refusal {
    let Request { method, path, .. } = asked;
    match ROUTES.iter().find(|(_, route)| fits(route, path)) {
        Some((allow, _)) => Refusal::method(allow, format_args!("{path} takes {allow}, not {method}")),
        None => Refusal::missing(format_args!("there is no {path} here; docs/api.md has all that there is")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_its_route_and_no_other() {
        let leads = |asked: &Request| ROUTES.iter().find(|route| leads(route, asked)).map(|r| r.1);
        assert_eq!(leads(&Request::get("/verify/17")), Some("/verify/N"));
        assert_eq!(leads(&Request::post("/verify")), Some("/verify"));
        for astray in ["/verify/x", "/verify/", "/status/", "/", "", "/verify/N", "//status"] {
            assert_eq!(leads(&Request::get(astray)), None, "{astray}");
        }
        assert_eq!(leads(&Request::get("/unmount")), None);
    }

    #[test]
    fn who_asks_with_the_wrong_method_is_told_the_right_one() {
        let response = astray(&Request::get("/flush")).response();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["allow"]),
            (405, &"POST".parse().unwrap())
        );
        assert_eq!(astray(&Request::get("/flash")).response().status(), 404);
    }
}
