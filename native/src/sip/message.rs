//! SIP messages and URIs as Python reads them, and the framing of a TCP stream.

use bytes::Bytes;
use pyo3::prelude::*;
use sipx_sip::validate::Finding;
use sipx_sip::{
    Address, HeaderName, Headers, Limits, Message, StreamParser, Uri, Via, parse_datagram, validate,
};

use super::{limits, refused, text};

fn header_name(name: &str) -> HeaderName {
    HeaderName::parse(&Bytes::copy_from_slice(name.as_bytes()))
}

/// What is wrong, as a reason phrase may say it.
fn words(finding: &Finding) -> String {
    match finding {
        Finding::MissingRequiredHeader(name) => format!("Missing {name}"),
        Finding::MalformedRequiredHeader(name) => format!("Malformed {name}"),
        Finding::RepeatedSingleValueHeader(name) => format!("Repeated {name}"),
        Finding::CSeqMethodMismatch => "CSeq names another method".to_owned(),
        Finding::UnsupportedVersion => "Version Not Supported".to_owned(),
        Finding::RequestUriHasHeaders => "Request-URI with headers".to_owned(),
        _ => "Bad Request".to_owned(),
    }
}

/// A URI's parts: scheme, user (decoded), host, port, parameters.
type UriParts = (
    String,
    Option<String>,
    String,
    Option<u16>,
    Vec<(String, Option<String>)>,
);

/// Display name, URI, tag.
type AddressParts = (Option<String>, String, Option<String>);
/// Transport, host, port, branch, whether rport was asked for.
type ViaParts = (String, String, Option<u16>, Option<String>, bool);

fn uri_parts(uri: &Uri) -> UriParts {
    if let Some(tel) = uri.tel_parts() {
        return (
            "tel".to_owned(),
            Some(text(tel.subscriber())),
            String::new(),
            None,
            tel.parsed_parameters()
                .flatten()
                .map(|param| (text(param.name()), param.value().map(text)))
                .collect(),
        );
    }
    let params = uri.params().map_or_else(Vec::new, |params| {
        params
            .iter()
            .map(|param| (text(param.name()), param.value().map(text)))
            .collect()
    });
    (
        text(uri.scheme().as_bytes()),
        uri.decoded_user().map(|user| text(&user)),
        uri.host().map(|host| text(&host.to_bytes())).unwrap_or_default(),
        uri.port(),
        params,
    )
}

/// A parsed SIP message.
#[pyclass(frozen, module = "mediaserver._native")]
pub(super) struct SipMessage {
    pub(super) message: Message,
}

impl SipMessage {
    fn headers(&self) -> &Headers {
        self.message.headers()
    }
}

#[pymethods]
impl SipMessage {
    #[staticmethod]
    #[pyo3(signature = (data, max_message_bytes=65536))]
    fn parse(data: &[u8], max_message_bytes: usize) -> PyResult<Self> {
        let limits = limits(max_message_bytes, Limits::datagram());
        let message = parse_datagram(Bytes::copy_from_slice(data), &limits).map_err(refused)?;
        Ok(Self { message })
    }

    /// What RFC 3261 8.1.1 forbids in it: (status that answers it, words, whether it may be overlooked).
    fn problems(&self) -> Vec<(u16, String, bool)> {
        validate(&self.message)
            .iter()
            .map(|finding| (finding.status(), words(finding), finding.is_repairable()))
            .collect()
    }

    #[getter]
    fn method(&self) -> Option<String> {
        self.message
            .as_request()
            .map(|request| request.method.to_string())
    }

    #[getter]
    fn uri(&self) -> Option<String> {
        self.message
            .as_request()
            .map(|request| text(&request.uri.to_bytes()))
    }

    #[getter]
    fn status(&self) -> Option<u16> {
        self.message.as_response().map(|response| response.status.code())
    }

    #[getter]
    fn reason(&self) -> Option<String> {
        self.message.as_response().map(|response| text(&response.reason))
    }

    #[getter]
    fn supported_version(&self) -> bool {
        match &self.message {
            Message::Request(request) => request.version.is_supported(),
            Message::Response(response) => response.version.is_supported(),
        }
    }

    #[getter]
    fn body(&self) -> &[u8] {
        self.message.body()
    }

    fn header(&self, name: &str) -> Option<String> {
        self.headers().value(&header_name(name)).map(|value| text(&value))
    }

    fn header_values(&self, name: &str) -> Vec<String> {
        self.headers()
            .get_all(&header_name(name))
            .map(|header| text(&header.value()))
            .collect()
    }

    /// The addresses of every row of a header: (display name, URI, tag).
    fn addresses(&self, name: &str) -> PyResult<Vec<AddressParts>> {
        let name = header_name(name);
        let mut found = Vec::new();
        for header in self.headers().get_all(&name) {
            for address in Address::parse_list(&header.value(), "address").map_err(refused)? {
                let display = address.display_name.as_deref().map(text);
                found.push((display, text(&address.uri.to_bytes()), address.tag().map(text)));
            }
        }
        Ok(found)
    }

    /// The topmost Via: (transport, host, port, branch, whether rport was asked for).
    fn top_via(&self) -> Option<ViaParts> {
        let via = self.headers().typed::<Via>()?.ok()?;
        let branch = via.branch().map(text);
        Some((
            text(&via.transport),
            text(&via.host.to_bytes()),
            via.port,
            branch,
            via.rport().is_some(),
        ))
    }

    fn encode(&self) -> Vec<u8> {
        self.message.to_bytes().to_vec()
    }
}

/// The parts of a SIP or tel URI.
#[pyfunction]
pub(super) fn sip_uri_parts(uri: &str) -> PyResult<UriParts> {
    let uri = Uri::parse(Bytes::copy_from_slice(uri.as_bytes())).map_err(refused)?;
    Ok(uri_parts(&uri))
}

/// Frames messages out of a TCP stream.
#[pyclass(module = "mediaserver._native")]
pub(super) struct SipStreamParser {
    parser: StreamParser,
}

#[pymethods]
impl SipStreamParser {
    #[new]
    fn new(max_message_bytes: usize) -> Self {
        Self {
            parser: StreamParser::new(limits(max_message_bytes, Limits::stream())),
        }
    }

    fn push(&mut self, chunk: &[u8]) -> PyResult<Vec<SipMessage>> {
        let messages = self.parser.push(chunk).map_err(refused)?;
        Ok(messages
            .into_iter()
            .map(|message| SipMessage { message })
            .collect())
    }

    fn take_keepalives(&mut self) -> usize {
        self.parser.take_keepalives()
    }

    #[getter]
    fn pending(&self) -> usize {
        self.parser.pending()
    }
}
