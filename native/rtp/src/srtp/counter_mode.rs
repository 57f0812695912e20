//! AES in counter mode with HMAC-SHA1 (RFC 3711 sections 4.1.1 and 4.2).

use aes::Aes128Enc;
use ctr::cipher::{InnerIvInit, StreamCipher};
use ctr::{Ctr128BE, CtrCore};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use zeroize::Zeroizing;

use super::SrtpError;
use super::keys::SessionKeys;
use super::transform::{ENCRYPTED, RTCP_CLEAR_LEN, Transform, WORD_LEN, split_word};

/// Encryption, then a tag over everything that the receiver believes.
pub(super) struct CounterMode {
    cipher: Aes128Enc,
    /// The session salt, times 2^16: where it stands in the initial counter.
    salt: Zeroizing<u128>,
    /// Both paddings of the key are hashed already; each packet goes on from a copy.
    mac: Hmac<Sha1>,
    tag_len: usize,
}

impl CounterMode {
    pub(super) fn new(keys: &SessionKeys, tag_len: usize) -> Self {
        let mut salt = [0; 16];
        salt[..keys.salt.len()].copy_from_slice(&keys.salt);
        let mut block = Zeroizing::new([0; 64]);
        block[..keys.auth.len()].copy_from_slice(&keys.auth);
        Self {
            cipher: Aes128Enc::new(&keys.cipher.into()),
            salt: Zeroizing::new(u128::from_be_bytes(salt)),
            // HMAC fills a short key up with zeros to one block of the hash (RFC 2104 section 2).
            mac: Hmac::new(&(*block).into()),
            tag_len,
        }
    }

    /// Encrypt or decrypt. The index stands above 16 bits of block counter: a datagram needs 12 of them.
    fn apply(&self, ssrc: u32, index: u64, text: &mut [u8]) {
        let counter = *self.salt ^ u128::from(ssrc) << 64 ^ u128::from(index) << 16;
        apply_keystream(&self.cipher, counter, text);
    }

    /// Over a packet and what follows it: the rollover counter or the word of RTCP.
    fn mac(&self, packet: &[u8], suffix: [u8; 4]) -> Hmac<Sha1> {
        self.mac.clone().chain_update(packet).chain_update(suffix)
    }

    fn write_tag(&self, packet: &[u8], suffix: [u8; 4], tag: &mut [u8]) {
        let digest = self.mac(packet, suffix).finalize().into_bytes();
        tag.copy_from_slice(&digest[..self.tag_len]);
    }

    /// In constant time.
    fn check_tag(&self, packet: &[u8], suffix: [u8; 4], tag: &[u8]) -> Result<(), SrtpError> {
        self.mac(packet, suffix)
            .verify_truncated_left(tag)
            .map_err(|_| SrtpError::Authentication)
    }
}

impl Transform for CounterMode {
    fn tag_len(&self) -> usize {
        self.tag_len
    }

    fn seal_rtp(&self, packet: &mut [u8], header_len: usize, ssrc: u32, index: u64) {
        let (packet, tag) = packet.split_at_mut(packet.len() - self.tag_len);
        self.apply(ssrc, index, &mut packet[header_len..]);
        self.write_tag(packet, rollover(index), tag);
    }

    fn open_rtp(&self, packet: &mut [u8], header_len: usize, ssrc: u32, index: u64) -> Result<(), SrtpError> {
        let (packet, tag) = packet.split_at_mut(packet.len() - self.tag_len);
        self.check_tag(packet, rollover(index), tag)?;
        self.apply(ssrc, index, &mut packet[header_len..]);
        Ok(())
    }

    fn seal_rtcp(&self, packet: &mut [u8], ssrc: u32, index: u32) {
        let (packet, tag) = packet.split_at_mut(packet.len() - self.tag_len);
        let (packet, word) = packet.split_at_mut(packet.len() - WORD_LEN);
        word.copy_from_slice(&(index | ENCRYPTED).to_be_bytes());
        self.apply(ssrc, u64::from(index), &mut packet[RTCP_CLEAR_LEN..]);
        self.write_tag(packet, (index | ENCRYPTED).to_be_bytes(), tag);
    }

    fn rtcp_word(&self, packet: &[u8]) -> [u8; WORD_LEN] {
        let at = packet.len() - self.tag_len - WORD_LEN;
        std::array::from_fn(|i| packet[at + i])
    }

    fn open_rtcp(&self, packet: &mut [u8], ssrc: u32) -> Result<(), SrtpError> {
        let word = self.rtcp_word(packet);
        let (packet, tag) = packet.split_at_mut(packet.len() - self.tag_len);
        let plain_len = packet.len() - WORD_LEN;
        let packet = &mut packet[..plain_len];
        self.check_tag(packet, word, tag)?;
        let (encrypted, index) = split_word(word);
        if encrypted {
            self.apply(ssrc, u64::from(index), &mut packet[RTCP_CLEAR_LEN..]);
        }
        Ok(())
    }
}

/// Add the keystream that begins at `counter` (RFC 3711 section 4.1.1).
pub(super) fn apply_keystream(cipher: &Aes128Enc, counter: u128, text: &mut [u8]) {
    let core = CtrCore::inner_iv_init(cipher, &counter.to_be_bytes().into());
    Ctr128BE::from_core(core).apply_keystream(text);
}

/// The rollover counter, which is authenticated and not sent (RFC 3711 section 4.2).
fn rollover(index: u64) -> [u8; 4] {
    ((index >> 16) as u32).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3711 appendix B.2: the keystream for SSRC 0 and index 0, at both ends of the block counter.
    #[test]
    fn keystream_of_the_rfc() {
        let keys = SessionKeys {
            cipher: 0x2b7e_1516_28ae_d2a6_abf7_1588_09cf_4f3c_u128.to_be_bytes(),
            auth: [0; 20],
            salt: std::array::from_fn(|i| 0xf0 + i as u8),
        };
        let mut stream = vec![0; 16 * 0xff02];
        CounterMode::new(&keys, 10).apply(0, 0, &mut stream);
        let block = |n: usize| u128::from_be_bytes(stream[16 * n..16 * n + 16].try_into().unwrap());
        assert_eq!(block(0), 0xe03e_ad09_35c9_5e80_e166_b16d_d92b_4eb4);
        assert_eq!(block(1), 0xd235_1316_2b02_d0f7_2a43_a2fe_4a5f_97ab);
        assert_eq!(block(2), 0x41e9_5b3b_b0a2_e8dd_4779_01e4_fca8_94c0);
        assert_eq!(block(0xfeff), 0xec8c_df73_9860_7cb0_f2d2_1675_ea9e_a1e4);
        assert_eq!(block(0xff00), 0x362b_7c3c_6773_5163_18a0_77d7_fc50_73ae);
        assert_eq!(block(0xff01), 0x6a2c_c378_7889_374f_beb4_c81b_17ba_6c44);
    }
}
