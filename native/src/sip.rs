//! `sipx-sip` for Python: messages, stream framing and the transaction layer. No logic beyond translation, and the
//! `received` and `rport` that a server's transport adds to the topmost `Via` (RFC 3261 18.2.1, RFC 3581 4).

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use sipx_sip::transaction::{Dispatch, Reason};
use sipx_sip::validate::Finding;
use sipx_sip::{
    Address, Header, HeaderName, Headers, Limits, Message, Output, Reliability, StreamParser, Timer, Timers,
    TransactionKey, TransactionLayer, TuEvent, Uri, Via, parse_datagram, validate,
};

create_exception!(
    mediaserver._native,
    SipParseError,
    PyException,
    "Bytes that are no SIP message."
);

const TIMERS: [(&str, Timer); 13] = [
    ("A", Timer::A),
    ("B", Timer::B),
    ("D", Timer::D),
    ("E", Timer::E),
    ("F", Timer::F),
    ("G", Timer::G),
    ("H", Timer::H),
    ("I", Timer::I),
    ("J", Timer::J),
    ("K", Timer::K),
    ("L", Timer::L),
    ("M", Timer::M),
    ("Trying100", Timer::Trying100),
];

/// Far beyond what a peer may send us.
const OWN_BYTES_MAX: usize = 4 << 20;

fn refused(error: impl std::fmt::Display) -> PyErr {
    SipParseError::new_err(error.to_string())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn header_name(name: &str) -> HeaderName {
    HeaderName::parse(&Bytes::copy_from_slice(name.as_bytes()))
}

fn limits(max_message_bytes: usize, base: Limits) -> Limits {
    Limits {
        max_message_bytes,
        max_body_bytes: max_message_bytes,
        ..base
    }
}

/// Read a message of our own. What we answer was within the limits, and the answer is a little longer.
fn own(data: &[u8]) -> PyResult<Message> {
    let generous = Limits {
        max_headers: 1024,
        max_header_bytes: OWN_BYTES_MAX,
        ..limits(OWN_BYTES_MAX, Limits::datagram())
    };
    parse_datagram(Bytes::copy_from_slice(data), &generous).map_err(refused)
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
struct SipMessage {
    message: Message,
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
fn sip_uri_parts(uri: &str) -> PyResult<UriParts> {
    let uri = Uri::parse(Bytes::copy_from_slice(uri.as_bytes())).map_err(refused)?;
    Ok(uri_parts(&uri))
}

/// Frames messages out of a TCP stream.
#[pyclass(module = "mediaserver._native")]
struct SipStreamParser {
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

/// Names a transaction.
#[pyclass(frozen, module = "mediaserver._native")]
struct SipKey {
    key: TransactionKey,
}

#[pymethods]
impl SipKey {
    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.key.hash(&mut hasher);
        hasher.finish()
    }

    fn __eq__(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

/// Something that a transaction wants done.
#[pyclass(frozen, get_all, module = "mediaserver._native")]
struct SipOutput {
    kind: &'static str,
    data: Option<Vec<u8>>,
    message: Option<Py<SipMessage>>,
    timer: Option<&'static str>,
    after_ms: Option<u64>,
}

fn output(py: Python<'_>, output: Output) -> PyResult<Option<SipOutput>> {
    let plain = |kind| SipOutput {
        kind,
        data: None,
        message: None,
        timer: None,
        after_ms: None,
    };
    let told = |kind, message| -> PyResult<SipOutput> {
        Ok(SipOutput {
            message: Some(Py::new(py, SipMessage { message })?),
            ..plain(kind)
        })
    };
    Ok(Some(match output {
        Output::Send(message) => SipOutput {
            data: Some(message.to_bytes().to_vec()),
            ..plain("send")
        },
        Output::SetTimer { timer, after } => SipOutput {
            timer: Some(timer_name(timer)),
            after_ms: Some(after.as_millis().try_into().unwrap_or(u64::MAX)),
            ..plain("set_timer")
        },
        Output::ClearTimer(timer) => SipOutput {
            timer: Some(timer_name(timer)),
            ..plain("clear_timer")
        },
        Output::ToTu(event) => match *event {
            TuEvent::Request(request) => told("request", Message::Request(*request))?,
            TuEvent::Response(response) => told("response", Message::Response(*response))?,
            TuEvent::Ack(request) => told("ack", Message::Request(*request))?,
            TuEvent::Timeout => plain("timeout"),
            TuEvent::TransportError => plain("transport_error"),
            _ => return Ok(None),
        },
        Output::Terminated(Reason::Completed | Reason::Timeout | Reason::TransportError) => {
            plain("terminated")
        }
        _ => return Ok(None),
    }))
}

fn outputs(py: Python<'_>, list: Vec<Output>) -> PyResult<Vec<SipOutput>> {
    list.into_iter()
        .filter_map(|one| output(py, one).transpose())
        .collect()
}

fn timer_name(timer: Timer) -> &'static str {
    TIMERS
        .iter()
        .find(|(_, known)| *known == timer)
        .map_or("?", |(name, _)| name)
}

fn reliability(reliable: bool) -> Reliability {
    if reliable {
        Reliability::Reliable
    } else {
        Reliability::Unreliable
    }
}

/// Add what the topmost Via of a received request lacks: where it really came from.
fn note_source(headers: &mut Headers, source: IpAddr, port: u16) -> PyResult<()> {
    let Some(Ok(via)) = headers.typed::<Via>() else {
        return Ok(());
    };
    let Some(row) = headers.value(&HeaderName::Via).map(|value| text(&value)) else {
        return Ok(());
    };
    let (top, rest) = row.split_at(sipx_sip::headers::first_hop_end(row.as_bytes()));
    // Whatever the sender claims about its own address is replaced: answers go where the request came from.
    let mut noted: Vec<String> = Vec::new();
    for part in top.trim_end().split(';') {
        let name = part.split('=').next().unwrap_or_default().trim();
        if name.eq_ignore_ascii_case("rport") {
            noted.push(format!("rport={port}"));
        } else if !name.eq_ignore_ascii_case("received") {
            noted.push(part.to_owned());
        }
    }
    let stated = text(&via.host.to_bytes());
    if via.rport().is_some() || stated.trim_matches(['[', ']']) != source.to_string() {
        noted.push(format!("received={source}"));
    }
    let header = Header::build(HeaderName::Via, noted.join(";") + rest).map_err(refused)?;
    headers.remove_first(&HeaderName::Via);
    headers.push_front(header);
    Ok(())
}

type Received = (&'static str, Option<SipKey>, Option<SipMessage>, Vec<SipOutput>);

/// The transactions in flight (RFC 3261 17, RFC 6026), sans-IO.
#[pyclass(frozen, module = "mediaserver._native")]
struct SipTransactions {
    layer: Mutex<TransactionLayer>,
}

#[pymethods]
impl SipTransactions {
    #[new]
    #[pyo3(signature = (*, t1_ms=500, t2_ms=4000, t4_ms=5000))]
    fn new(t1_ms: u64, t2_ms: u64, t4_ms: u64) -> Self {
        let timers = Timers {
            t1: Duration::from_millis(t1_ms),
            t2: Duration::from_millis(t2_ms),
            t4: Duration::from_millis(t4_ms),
        };
        Self {
            layer: Mutex::new(TransactionLayer::new(timers)),
        }
    }

    /// Take a message from the network: ("created" | "matched" | "unmatched", key, the unmatched message, outputs).
    fn receive(
        &self,
        py: Python<'_>,
        message: &SipMessage,
        source: &str,
        port: u16,
        reliable: bool,
    ) -> PyResult<Received> {
        let mut message = message.message.clone();
        if let Message::Request(request) = &mut message {
            // An IPv6 zone is ours, not the peer's.
            let source = source
                .split('%')
                .next()
                .unwrap_or(source)
                .parse()
                .map_err(refused)?;
            note_source(&mut request.headers, source, port)?;
        }
        let dispatch = lock(&self.layer).receive(message, reliability(reliable));
        Ok(match dispatch {
            Dispatch::Created { key, outputs: list } => {
                ("created", Some(SipKey { key }), None, outputs(py, list)?)
            }
            Dispatch::Matched { key, outputs: list } => {
                ("matched", Some(SipKey { key }), None, outputs(py, list)?)
            }
            Dispatch::Unmatched(message) => {
                ("unmatched", None, Some(SipMessage { message: *message }), vec![])
            }
        })
    }

    /// Start a client transaction for an encoded request.
    fn send_request(
        &self,
        py: Python<'_>,
        data: &[u8],
        reliable: bool,
    ) -> PyResult<(SipKey, Vec<SipOutput>)> {
        let Message::Request(request) = own(data)? else {
            return Err(refused("a response cannot start a transaction"));
        };
        let (key, list) = lock(&self.layer)
            .send_request(request, reliability(reliable))
            .ok_or_else(|| refused("the request has no Via with a branch"))?;
        Ok((SipKey { key }, outputs(py, list)?))
    }

    /// Answer a server transaction with an encoded response.
    fn send_response(&self, py: Python<'_>, key: &SipKey, data: &[u8]) -> PyResult<Vec<SipOutput>> {
        let Message::Response(response) = own(data)? else {
            return Err(refused("a request cannot answer a transaction"));
        };
        let list = lock(&self.layer).send_response(&key.key, response);
        outputs(py, list)
    }

    /// A timer has fired.
    fn on_timer(&self, py: Python<'_>, key: &SipKey, timer: &str) -> PyResult<Vec<SipOutput>> {
        let (_, timer) = TIMERS
            .iter()
            .find(|(name, _)| *name == timer)
            .ok_or_else(|| refused(format!("{timer:?} is no transaction timer")))?;
        let list = lock(&self.layer).on_timer(&key.key, *timer);
        outputs(py, list)
    }

    /// The transport could not deliver.
    fn on_transport_error(&self, py: Python<'_>, key: &SipKey) -> PyResult<Vec<SipOutput>> {
        let list = lock(&self.layer).on_transport_error(&key.key);
        outputs(py, list)
    }

    /// Forget a server transaction that was never answered.
    fn abandon(&self, key: &SipKey) -> bool {
        lock(&self.layer).abandon(&key.key)
    }

    /// The key of the INVITE that a CANCEL names.
    #[staticmethod]
    fn cancelled(cancel: &SipMessage) -> Option<SipKey> {
        let request = cancel.message.as_request()?;
        TransactionKey::for_cancelled_invite(request).map(|key| SipKey { key })
    }

    /// Transactions in flight: (client, server).
    fn counts(&self) -> (usize, usize) {
        lock(&self.layer).len()
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("SipParseError", module.py().get_type::<SipParseError>())?;
    module.add_class::<SipMessage>()?;
    module.add_class::<SipStreamParser>()?;
    module.add_class::<SipKey>()?;
    module.add_class::<SipOutput>()?;
    module.add_class::<SipTransactions>()?;
    module.add_function(wrap_pyfunction!(sip_uri_parts, module)?)?;
    Ok(())
}
