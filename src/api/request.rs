//! What is asked: a method, a path, and parameters in the query. The same for who asks and for who answers.
//!
//! Invariants: bodies are never read; a parameter that a route does not know is refused, not ignored.

use super::answer::Refusal;
use form_urlencoded::Serializer;
use hyper::{Method, Uri};
use std::str::FromStr;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: Method,
    pub path: String,
    parameters: Vec<(String, String)>,
    /// The last event that was heard of, where an earlier answer broke off.
    pub since: Option<u64>,
    /// Under which name the daemon is asked.
    pub host: Option<String>,
}

impl Request {
    pub fn get(path: impl Into<String>) -> Request {
        Request { method: Method::GET, path: path.into(), parameters: Vec::new(), since: None, host: None }
    }

    pub fn post(path: impl Into<String>) -> Request {
        Request { method: Method::POST, ..Request::get(path) }
    }

    /// With a parameter.
    pub fn with(mut self, key: &str, value: impl ToString) -> Request {
        self.parameters.push((key.to_owned(), value.to_string()));
        self
    }

    /// With a parameter, if there is a value for it.
    pub fn with_some(self, key: &str, value: Option<impl ToString>) -> Request {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// Path and query, as they go over the socket.
    pub fn target(&self) -> String {
        match self.parameters.is_empty() {
            true => self.path.clone(),
            false => {
                let query = Serializer::new(String::new()).extend_pairs(&self.parameters).finish();
                format!("{}?{query}", self.path)
            }
        }
    }

    /// What came over the socket.
    pub fn read(method: Method, uri: &Uri) -> Request {
        let query = uri.query().unwrap_or_default();
        let parameters = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        Request { method, path: uri.path().to_owned(), parameters, since: None, host: None }
    }

    /// Takes the parameter `key` out.
    pub fn optional<T: FromStr>(&mut self, key: &str) -> Result<Option<T>, Refusal> {
        let Some(at) = self.parameters.iter().position(|(k, _)| k == key) else { return Ok(None) };
        let (_, value) = self.parameters.remove(at);
        let value = value.parse();
        value
            .map(Some)
            .map_err(|_| Refusal::usage(format_args!("the parameter {key} has a value that can't be")))
    }

    /// The same, where nothing can be done without it.
    pub fn required<T: FromStr>(&mut self, key: &str) -> Result<T, Refusal> {
        self.optional(key)?.ok_or_else(|| {
            Refusal::usage(format_args!("{} needs the parameter {key}: {}?{key}=...", self.path, self.path))
        })
    }

    /// To be called when all parameters are taken.
    pub fn done(&self) -> Result<(), Refusal> {
        match self.parameters.first() {
            None => Ok(()),
            Some((key, _)) => {
                Err(Refusal::usage(format_args!("{} has no parameter {key:?}, or not twice", self.path)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_arrives_as_it_left() {
        let name = "a b&c=d/ä+%?#.txt";
        let sent = Request::post("/pin").with("name", name).with("n", 7).with_some("x", None::<u8>);
        let uri: Uri = sent.target().parse().unwrap();
        let mut read = Request::read(Method::POST, &uri);
        assert_eq!(read, sent);
        assert_eq!(read.required::<String>("name").unwrap(), name);
        assert_eq!(read.optional::<u64>("n").unwrap(), Some(7));
        read.done().unwrap();
        assert_eq!(Request::get("/status").target(), "/status");
    }

    #[test]
    fn what_a_route_does_not_know_is_refused() {
        let request = |target: &str| Request::read(Method::GET, &target.parse().unwrap());
        assert!(request("/verify?repair=perhaps").optional::<bool>("repair").is_err());
        assert!(request("/pin").required::<String>("name").is_err());
        assert!(request("/status?colour=red").done().is_err());
        let mut twice = request("/pin?name=a&name=b");
        twice.required::<String>("name").unwrap();
        assert!(twice.done().is_err());
    }
}
