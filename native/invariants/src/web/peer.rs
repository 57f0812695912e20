//! A peer of a WebRTC leg that has the password and the keys, and says with them whatever it likes.
//!
//! It does as much of ICE, SRTP and SCTP as is needed to be believed, with str0m's cryptography and its DTLS (`dimpl`), and
//! protects any octets that it is given: what a browser's own stack would never send.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use dimpl::{Config, Dtls, DtlsCertificate, Output};
use rtp::packet::header_len;
use str0m::config::CryptoProvider;
use str0m::crypto::{AeadAes256Gcm, AeadAes256GcmCipher};

/// Octets of a key and of a salt of `AEAD_AES_256_GCM` (RFC 7714 section 12), which the leg prefers.
const KEY_LEN: usize = 32;
const SALT_LEN: usize = 12;
const TAG_LEN: usize = 16;
/// RFC 8489 section 14.
const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const ICE_CONTROLLING: u16 = 0x802a;
/// RFC 9260 section 3.2.
const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const COOKIE_ECHO: u8 = 10;
const STATE_COOKIE: u16 = 7;
const OUR_TAG: u32 = 0x0102_0304;

/// What both sides of the exported keys are (RFC 5764 section 4.2): of the client, for the client is the peer.
struct Keys {
    rtp: Direction,
    rtcp: Direction,
    /// Of the RTP packet that is furthest (RFC 3711 section 3.3.1), and of the last SRTCP packet.
    rtp_index: Option<u64>,
    rtcp_index: u32,
}

struct Direction {
    cipher: Box<dyn AeadAes256GcmCipher>,
    salt: [u8; SALT_LEN],
}

pub(crate) struct Peer {
    crypto: CryptoProvider,
    fingerprint: String,
    dtls: Dtls,
    epoch: Instant,
    username: String,
    password: String,
    checks: u32,
    keys: Option<Keys>,
    /// The tag that the leg's SCTP wants to see; 0 before it has said so.
    tag: u32,
    cookie: Option<Vec<u8>>,
    tsn: u32,
    /// By stream, the number of its next message.
    messages: BTreeMap<u16, u16>,
}

impl Peer {
    pub(crate) fn new(epoch: Instant) -> Self {
        let crypto = str0m::crypto::from_feature_flags();
        // Each takes a millisecond, for it tries all of the cryptography.
        thread_local! {
            static OURS: (Arc<Config>, DtlsCertificate) = (
                Arc::new(Config::builder().build().expect("a configuration")),
                dimpl::certificate::generate_self_signed_certificate().expect("a certificate"),
            );
        }
        let (config, certificate) = OURS.with(Clone::clone);
        let digest = crypto.sha256_provider.sha256(&certificate.certificate);
        let fingerprint: Vec<String> = digest.iter().map(|octet| format!("{octet:02X}")).collect();
        let mut dtls = Dtls::new_12(config, certificate, epoch);
        dtls.set_active(true);
        Self {
            crypto,
            fingerprint: fingerprint.join(":"),
            dtls,
            epoch,
            username: String::new(),
            password: String::new(),
            checks: 0,
            keys: None,
            tag: 0,
            cookie: None,
            tsn: 1,
            messages: BTreeMap::new(),
        }
    }

    pub(crate) fn offer(&self) -> String {
        format!(
            "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
             a=fingerprint:sha-256 {}\r\na=ice-ufrag:peer\r\na=ice-pwd:passwordpasswordpassword\r\na=setup:actpass\r\n\
             m=audio 9 UDP/TLS/RTP/SAVPF 111 110\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=sendrecv\r\na=rtcp-mux\r\n\
             a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
             a=rtpmap:111 opus/48000/2\r\na=rtpmap:110 telephone-event/48000\r\na=ssrc:1 cname:peer\r\n\
             m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\n\
             a=sctp-port:5000\r\na=max-message-size:262144\r\n",
            self.fingerprint
        )
    }

    /// Read the credentials of an answer.
    pub(crate) fn accept(&mut self, answer: &str) {
        let value = |name: &str| answer.lines().find_map(|line| line.strip_prefix(name));
        let ufrag = value("a=ice-ufrag:").expect("an answer has credentials");
        self.username = format!("{ufrag}:peer");
        value("a=ice-pwd:").expect("both").clone_into(&mut self.password);
    }

    /// An ICE check (RFC 8445 section 7.2.2) with further attributes, or any octets in their place, under the right
    /// integrity.
    pub(crate) fn check(&mut self, further: &[u8]) -> Vec<u8> {
        self.checks += 1;
        let mut check = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        check.extend_from_slice(&[7; 8]);
        check.extend_from_slice(&self.checks.to_be_bytes());
        put(&mut check, USERNAME, self.username.as_bytes());
        put(&mut check, PRIORITY, &1_u32.to_be_bytes());
        put(&mut check, ICE_CONTROLLING, &1_u64.to_be_bytes());
        put(&mut check, USE_CANDIDATE, &[]);
        check.extend_from_slice(further);
        // The length covers the integrity, the integrity what stands before it (RFC 8489 section 14.5).
        let length = check.len() - 20 + 24;
        check[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        let hmac = self
            .crypto
            .sha1_hmac_provider
            .sha1_hmac(self.password.as_bytes(), &[&check]);
        put(&mut check, MESSAGE_INTEGRITY, &hmac);
        check
    }

    /// Let DTLS know the time; it begins with the first.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let _ = self.dtls.handle_timeout(now.max(self.epoch));
    }

    /// Take what the leg sent.
    pub(crate) fn handle_datagram(&mut self, datagram: &[u8]) {
        if matches!(datagram.first(), Some(20..=63)) {
            let _ = self.dtls.handle_packet(datagram);
        }
    }

    /// What DTLS has to send.
    pub(crate) fn poll(&mut self) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        let mut room = vec![0; 4096];
        loop {
            match self.dtls.poll_output(&mut room) {
                Output::Packet(datagram) => datagrams.push(datagram.to_vec()),
                Output::BufferTooSmall { needed } => room.resize(needed, 0),
                Output::KeyingMaterial(material, _) => {
                    assert_eq!(
                        material.len(),
                        2 * (KEY_LEN + SALT_LEN),
                        "another profile than ever"
                    );
                    self.keys = Some(Keys::new(&self.crypto, &material));
                }
                Output::ApplicationData(packet) => {
                    let packet = packet.to_vec();
                    self.read_sctp(&packet);
                }
                Output::Timeout(_) => return datagrams,
                _ => {}
            }
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.keys.is_some()
    }

    /// Any octets over DTLS; gone before it is connected.
    pub(crate) fn send_dtls(&mut self, data: &[u8]) {
        let _ = self.dtls.send_application_data(data);
    }

    pub(crate) fn close(&mut self) {
        let _ = self.dtls.close();
    }

    /// Any octets as an SRTP packet (RFC 7714 section 8), and the index that they have; nothing for what is too short to
    /// have one, and before DTLS is connected.
    pub(crate) fn protect_rtp(&mut self, packet: &[u8]) -> Option<(u64, Vec<u8>)> {
        let keys = self.keys.as_mut()?;
        let sequence = u16::from_be_bytes(*packet.get(2..)?.first_chunk()?);
        let ssrc = u32::from_be_bytes(*packet.get(8..)?.first_chunk()?);
        let furthest = keys.rtp_index.unwrap_or(u64::from(sequence));
        let step = i64::from(sequence.wrapping_sub(furthest as u16) as i16);
        let index = furthest.checked_add_signed(step).unwrap_or(u64::from(sequence));
        keys.rtp_index = Some(index.max(furthest));
        let iv = AeadAes256Gcm::rtp_iv(keys.rtp.salt, ssrc, (index >> 16) as u32, sequence);
        let (head, plain) = packet.split_at(header_len(packet).unwrap_or(12));
        let mut protected = head.to_vec();
        protected.resize(packet.len() + TAG_LEN, 0);
        let cipher = &mut keys.rtp.cipher;
        cipher
            .encrypt(&iv, head, plain, &mut protected[head.len()..])
            .ok()?;
        Some((index, protected))
    }

    /// Any octets as an SRTCP packet (RFC 7714 section 9).
    pub(crate) fn protect_rtcp(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys.as_mut()?;
        let Some((head, plain)) = packet.split_first_chunk::<8>() else {
            return Some(packet.to_vec());
        };
        let ssrc = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        keys.rtcp_index += 1;
        let index = (keys.rtcp_index | 1 << 31).to_be_bytes();
        let iv = AeadAes256Gcm::rtcp_iv(keys.rtcp.salt, ssrc, keys.rtcp_index);
        let mut protected = head.to_vec();
        protected.resize(packet.len() + TAG_LEN, 0);
        let additional = [&head[..], &index].concat();
        keys.rtcp
            .cipher
            .encrypt(&iv, &additional, plain, &mut protected[8..])
            .ok()?;
        protected.extend_from_slice(&index);
        Some(protected)
    }

    /// Begin an association.
    pub(crate) fn send_init(&mut self) {
        let mut init = OUR_TAG.to_be_bytes().to_vec();
        init.extend_from_slice(&0x0010_0000_u32.to_be_bytes());
        init.extend_from_slice(&[4, 0, 4, 0]);
        init.extend_from_slice(&self.tsn.to_be_bytes());
        // Of the extensions: forward TSN and the resetting of streams (RFC 8831 section 6.1).
        init.extend_from_slice(&[0xc0, 0, 0, 4, 0x80, 8, 0, 6, 0xc0, 0x82, 0, 0]);
        let init = chunk(INIT, 0, &init);
        self.send_sctp(0, &init);
    }

    /// Go on with it, once the leg has answered.
    pub(crate) fn send_cookie(&mut self) {
        if let Some(cookie) = self.cookie.take() {
            self.send_chunks(&chunk(COOKIE_ECHO, 0, &cookie));
        }
    }

    /// Any octets in the place of chunks.
    pub(crate) fn send_chunks(&mut self, chunks: &[u8]) {
        self.send_sctp(self.tag, chunks);
    }

    /// A message, or a part of one (RFC 9260 section 3.3.1, RFC 8832 for `protocol` 50).
    pub(crate) fn send_data(&mut self, ahead: i8, flags: u8, stream: u16, protocol: u32, payload: &[u8]) {
        let mut data = self
            .tsn
            .wrapping_add_signed(i32::from(ahead))
            .to_be_bytes()
            .to_vec();
        self.tsn = self.tsn.wrapping_add(1);
        data.extend_from_slice(&stream.to_be_bytes());
        let message = self.messages.entry(stream).or_default();
        data.extend_from_slice(&message.to_be_bytes());
        // The end of one that is in order.
        *message = message.wrapping_add(u16::from(flags & 0b101 == 1));
        data.extend_from_slice(&protocol.to_be_bytes());
        data.extend_from_slice(payload);
        self.send_chunks(&chunk(DATA, flags, &data));
    }

    fn send_sctp(&mut self, tag: u32, chunks: &[u8]) {
        let mut packet = [5000_u16.to_be_bytes(), 5000_u16.to_be_bytes()].concat();
        packet.extend_from_slice(&tag.to_be_bytes());
        packet.extend_from_slice(&[0; 4]);
        packet.extend_from_slice(chunks);
        let checksum = crc32c(&packet);
        packet[8..12].copy_from_slice(&checksum.to_le_bytes());
        self.send_dtls(&packet);
    }

    /// Of what the leg's SCTP says, only the answer to INIT matters (RFC 9260 section 3.3.3).
    fn read_sctp(&mut self, packet: &[u8]) {
        let Some(body) = packet
            .get(12..)
            .filter(|body| body.len() > 20 && body[0] == INIT_ACK)
        else {
            return;
        };
        self.tag = u32::from_be_bytes([body[4], body[5], body[6], body[7]]);
        let mut parameters = &body[20..];
        while let Some((prefix, rest)) = parameters.split_first_chunk::<4>() {
            let kind = u16::from_be_bytes([prefix[0], prefix[1]]);
            let length = usize::from(u16::from_be_bytes([prefix[2], prefix[3]])).saturating_sub(4);
            let Some(value) = rest.get(..length) else { return };
            if kind == STATE_COOKIE {
                self.cookie = Some(value.to_vec());
            }
            parameters = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

impl Keys {
    fn new(crypto: &CryptoProvider, material: &[u8]) -> Self {
        let (key, rest) = material.split_at(KEY_LEN);
        let salt = &rest[KEY_LEN..][..SALT_LEN];
        let direction = |first_label: u8| {
            let cipher = crypto
                .srtp_provider
                .aead_aes_256_gcm()
                .create_cipher(derive(crypto, key, salt, first_label), true);
            let salt = derive(crypto, key, salt, first_label + 2);
            Direction { cipher, salt }
        };
        Self {
            rtp: direction(0),
            rtcp: direction(3),
            rtp_index: None,
            rtcp_index: 0,
        }
    }
}

/// The key derivation of RFC 3711 section 4.3.3, with AES-256 (RFC 6188).
fn derive<const LEN: usize>(crypto: &CryptoProvider, key: &[u8], salt: &[u8], label: u8) -> [u8; LEN] {
    let mut block = [0; 16];
    block[..SALT_LEN].copy_from_slice(salt);
    block[7] ^= label;
    let mut derived = [0; LEN];
    for (round, part) in (0..).zip(derived.chunks_mut(16)) {
        block[15] = round;
        let mut stream = [0; 32];
        crypto
            .srtp_provider
            .srtp_aes_256_ecb_round(key, &block, &mut stream);
        part.copy_from_slice(&stream[..part.len()]);
    }
    derived
}

/// A STUN attribute with its padding.
fn put(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&(value.len() as u16).to_be_bytes());
    message.extend_from_slice(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// An SCTP chunk with its padding.
fn chunk(kind: u8, flags: u8, value: &[u8]) -> Vec<u8> {
    let mut chunk = vec![kind, flags];
    chunk.extend_from_slice(&(value.len() as u16 + 4).to_be_bytes());
    chunk.extend_from_slice(value);
    chunk.resize(chunk.len().next_multiple_of(4), 0);
    chunk
}

/// The checksum of SCTP (RFC 9260 appendix A), bit by bit.
fn crc32c(octets: &[u8]) -> u32 {
    let crc = octets.iter().fold(u32::MAX, |crc, &octet| {
        (0..8).fold(crc ^ u32::from(octet), |crc, _| {
            crc >> 1 ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    });
    !crc
}

/// Where a peer sends from.
pub(crate) fn address(number: u8) -> SocketAddr {
    ([198, 51, 100, 7], 50_000 + u16::from(number % 16)).into()
}
