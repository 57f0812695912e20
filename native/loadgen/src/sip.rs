//! As much of SIP's syntax (RFC 3261 7) as a caller needs: reading what a server sends, and the names of what it answers.

/// The first line of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start<'a> {
    /// A request, by its method.
    Request(&'a str),
    /// A response, by its status.
    Response(u16),
}

/// A parsed message; everything borrows from the datagram.
#[derive(Debug, Clone)]
pub struct Message<'a> {
    /// Request or response.
    pub start: Start<'a>,
    headers: Vec<(&'a str, &'a str)>,
    /// What follows the empty line.
    pub body: &'a str,
}

/// Long name by compact form (RFC 3261 7.3.3), of the headers that are read here.
const COMPACT: [(&str, &str); 7] = [
    ("v", "Via"),
    ("f", "From"),
    ("t", "To"),
    ("i", "Call-ID"),
    ("m", "Contact"),
    ("l", "Content-Length"),
    ("c", "Content-Type"),
];

impl<'a> Message<'a> {
    /// Read a datagram; `None` where it is no SIP message. Folded lines (RFC 3261 7.3.1), which nobody sends, are not.
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(datagram).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let first = lines.next()?;
        let start = if let Some(rest) = first.strip_prefix("SIP/2.0 ") {
            Start::Response(
                rest.split(' ')
                    .next()?
                    .parse()
                    .ok()
                    .filter(|status| (100..700).contains(status))?,
            )
        } else {
            let mut words = first.split(' ');
            let method = words.next().filter(|method| !method.is_empty())?;
            words.nth(1).filter(|version| *version == "SIP/2.0")?;
            Start::Request(method)
        };
        let headers = lines
            .map(|line| {
                line.split_once(':')
                    .map(|(name, value)| (name.trim(), value.trim()))
            })
            .collect::<Option<_>>()?;
        Some(Self { start, headers, body })
    }

    /// Every value of a header, in order, as it stands there.
    pub fn all<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'a str> + 's {
        let compact = COMPACT
            .iter()
            .find(|(_, long)| long.eq_ignore_ascii_case(name))
            .map(|(short, _)| *short);
        self.headers
            .iter()
            .filter(move |(given, _)| {
                given.eq_ignore_ascii_case(name)
                    || compact.is_some_and(|short| given.eq_ignore_ascii_case(short))
            })
            .map(|(_, value)| *value)
    }

    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.all(name).next()
    }

    /// Number and method of `CSeq`.
    pub fn cseq(&self) -> Option<(u32, &'a str)> {
        let (number, method) = self.header("CSeq")?.split_once(' ')?;
        Some((number.parse().ok()?, method.trim()))
    }

    /// The response to this request with nothing in it (RFC 3261 8.2.6.2); `to_tag` where To has none yet.
    pub fn respond(&self, status: u16, reason: &str, to_tag: &str) -> String {
        let first = format!("SIP/2.0 {status} {reason}\r\n");
        let vias = self.all("Via").map(|via| format!("Via: {via}\r\n"));
        let copied = ["From", "Call-ID", "CSeq"]
            .into_iter()
            .filter_map(|name| Some(format!("{name}: {}\r\n", self.header(name)?)));
        let to = self.header("To").map(|to| {
            let tag = if to.contains(";tag=") {
                String::new()
            } else {
                format!(";tag={to_tag}")
            };
            format!("To: {to}{tag}\r\n")
        });
        let mut text: String = std::iter::once(first)
            .chain(vias)
            .chain(copied)
            .chain(to)
            .collect();
        text.push_str("Content-Length: 0\r\n\r\n");
        text
    }
}

/// The URI of an address header: what stands in its angle brackets, or before its parameters.
pub fn uri(address: &str) -> &str {
    if let Some((_, rest)) = address.split_once('<') {
        return rest.split('>').next().unwrap_or(rest);
    }
    address.split(';').next().unwrap_or(address).trim()
}

/// The addresses of a header that lists them with commas (RFC 3261 7.3.1), none of which are within brackets or quotes.
pub fn addresses(value: &str) -> Vec<&str> {
    let (mut depth, mut quoted, mut begin, mut found) = (0_u32, false, 0, Vec::new());
    for (at, letter) in value.char_indices() {
        match letter {
            '"' => quoted = !quoted,
            '<' if !quoted => depth += 1,
            '>' if !quoted => depth = depth.saturating_sub(1),
            ',' if !quoted && depth == 0 => {
                found.push(value[begin..at].trim());
                begin = at + 1;
            }
            _ => {}
        }
    }
    found.push(value[begin..].trim());
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OK: &[u8] = b"SIP/2.0 200 OK\r\nv: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bK1\r\nTo: <sip:a@b>;tag=7\r\n\
        Record-Route: <sip:p1;lr>, \"a, b\" <sip:p2;lr>\r\nCSeq: 1 INVITE\r\ncontact: <sip:b@127.0.0.1:5070>\r\n\r\nv=0\r\n";

    #[test]
    fn a_response_is_read() {
        let message = Message::parse(OK).unwrap();
        assert_eq!(message.start, Start::Response(200));
        assert_eq!(
            message.header("via"),
            Some("SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bK1")
        );
        assert_eq!(message.cseq(), Some((1, "INVITE")));
        assert_eq!(message.header("Contact").map(uri), Some("sip:b@127.0.0.1:5070"));
        let routes = addresses(message.header("Record-Route").unwrap());
        assert_eq!(
            routes.iter().map(|route| uri(route)).collect::<Vec<_>>(),
            ["sip:p1;lr", "sip:p2;lr"]
        );
        assert_eq!(message.body, "v=0\r\n");
    }

    #[test]
    fn a_request_is_answered_with_its_own_headers() {
        let request = b"BYE sip:x@127.0.0.1 SIP/2.0\r\nVia: a\r\nVia: b\r\nf: <sip:a>;tag=1\r\nt: <sip:b>\r\ni: c\r\nCSeq: 4 BYE\r\n\r\n";
        let message = Message::parse(request).unwrap();
        assert_eq!(message.start, Start::Request("BYE"));
        let response = message.respond(200, "OK", "mine");
        let answer = Message::parse(response.as_bytes()).unwrap();
        assert_eq!(answer.all("Via").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(answer.header("To"), Some("<sip:b>;tag=mine"));
        assert_eq!(
            (answer.header("Call-ID"), answer.cseq()),
            (Some("c"), Some((4, "BYE")))
        );
    }

    proptest! {
        #[test]
        fn no_octets_are_too_much(octets in prop::collection::vec(any::<u8>(), 0..300), at in 0_usize..200, with: u8) {
            let _ = Message::parse(&octets);
            let mut near = OK.to_vec();
            let at = at % near.len();
            near[at] = with;
            if let Some(message) = Message::parse(&near) {
                let _ = (message.cseq(), message.respond(200, "OK", "t"));
                for value in message.all("Record-Route") {
                    let _ = addresses(value).into_iter().map(uri).count();
                }
            }
        }
    }
}
