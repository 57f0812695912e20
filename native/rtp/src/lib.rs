//! The RTP family on octets, without a clock or a socket: RTP, telephone-event, RTCP, SRTP.

pub mod packet;
pub mod quality;
pub mod rtcp;
pub mod telephone_event;
