//! What extended reports say of the voice (RFC 3611 4.7).

use super::*;

/// RFC 3611 section 4.7, only where the peer asked for it.
#[test]
fn voice_metrics() {
    let wants = RtcpParams {
        xr_voip_metrics: true,
        ..params(OURS)
    };
    let mut session = RtcpSession::new(wants, 0, 0);
    assert_eq!(metrics(&report(&mut session, 0)), None, "nothing came yet");
    // One loss alone, then a burst of three in five.
    let lost = [40, 100, 102, 104];
    for n in (0..200).filter(|n| !lost.contains(n)) {
        session.on_rtp_received(u64::from(n) * 20_000, &header(THEIRS, n));
        if n == 150 {
            session.note_discarded(1);
        }
    }
    session.set_local(LocalView {
        end_system_ms: 60,
        signal_dbm0: Some(-21),
        buffer_adapts: Some(true),
        buffer_nominal_ms: 40,
        ..LocalView::default()
    });
    let metrics = metrics(&report(&mut session, 4_000_000)).unwrap();
    assert_eq!((metrics.ssrc, metrics.gmin), (THEIRS, 16));
    assert_eq!((metrics.loss_rate, metrics.discard_rate), (5, 1));
    assert_eq!(
        (metrics.burst_density, metrics.burst_duration_ms),
        ((256 * 3 / 5) as u8, 100)
    );
    // 195 packets in two gaps.
    assert_eq!((metrics.gap_density, metrics.gap_duration_ms), (2, 1950));
    assert_eq!((metrics.round_trip_ms, metrics.end_system_ms), (0, 60));
    assert_eq!(
        (metrics.signal_level as i8, metrics.noise_level),
        (-21, UNAVAILABLE)
    );
    assert_eq!(
        (metrics.echo_return_loss, metrics.external_r_factor),
        (UNAVAILABLE, UNAVAILABLE)
    );
    assert!((80..=90).contains(&metrics.r_factor), "{metrics:?}");
    assert!(metrics.mos_cq <= metrics.mos_lq && metrics.mos_lq >= 41);
    assert_eq!(
        (metrics.receiver_configuration, metrics.buffer_nominal_ms),
        (0xf0, 40)
    );

    let mut quiet = RtcpSession::new(params(OURS), 0, 0);
    quiet.on_rtp_received(0, &header(THEIRS, 0));
    let said = report(&mut quiet, 1);
    assert_eq!(self::metrics(&said), None);
    // The peer's metrics of our stream come as an event.
    let about_us = VoipMetrics {
        ssrc: OURS,
        mos_lq: 38,
        ..metrics
    };
    let says = peer_says(|writer| writer.extended(THEIRS, None, None, Some(&about_us)));
    assert_eq!(
        quiet.on_rtcp_received(2, &says),
        Ok(Some(RtcpEvent::PeerMetrics(about_us)))
    );
}

#[test]
fn another_codec_mid_call() {
    let mut session = RtcpSession::new(params(OURS), 0, 0);
    for n in 0..50 {
        session.on_rtp_received(u64::from(n) * 20_000, &header(THEIRS, n));
    }
    session.on_rtp_sent(900_000, 7, 160);
    session.set_codec(QualityCodec::Opus, 48_000);
    // Without a packet of the new clock there is no timestamp for an SR.
    assert!(matches!(
        packets(&report(&mut session, 1_000_000))[0],
        Packet::ReceiverReport { .. }
    ));
    session.on_rtp_sent(1_020_000, 48_000, 60);
    let said = report(&mut session, 1_040_000);
    let Packet::SenderReport { info, .. } = packets(&said).remove(0) else {
        panic!("no SR");
    };
    assert_eq!((info.rtp_timestamp, info.packets), (48_960, 2));
    assert!(session.quality().jitter_ms < 0.1);
}
