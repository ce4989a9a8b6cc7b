//! Tables of accepted and refused names (T6, T9), and round trips.
//! Never: certificates; how an ID sits in one is tested in `verify`.

// SPDX-License-Identifier: Apache-2.0

use proptest::prelude::*;

use super::*;

#[test]
fn well_formed_ids_are_accepted() {
    let longest_domain = "d".repeat(255);
    for text in [
        "spiffe://example.org/ns/shop/sa/web",
        "spiffe://a/b",
        "spiffe://1.2.3.4/x",
        "spiffe://under_score-dash.org/A.b_C-9/...",
        &format!("spiffe://{longest_domain}/x"),
        &format!("spiffe://td/{}", "p".repeat(MAX_ID_BYTES - 12)),
    ] {
        assert_eq!(SpiffeId::parse(text).map(|id| id.to_string()), Ok(text.to_owned()));
    }
}

#[test]
fn malformed_ids_are_refused() {
    use IdError::*;
    let port = TrustDomainCharacter { seen: ':' };
    for (text, why) in [
        ("", Scheme),
        ("spiffe:/td/x", Scheme),
        ("SPIFFE://td/x", Scheme),
        ("https://td/x", Scheme),
        (" spiffe://td/x", Scheme),
        ("spiffe:///x", EmptyTrustDomain),
        ("spiffe://td:443/x", port),
        ("spiffe://user@td/x", TrustDomainCharacter { seen: '@' }),
        ("spiffe://TD/x", TrustDomainCharacter { seen: 'T' }),
        ("spiffe://tdé/x", TrustDomainCharacter { seen: 'é' }),
        ("spiffe://td?x=/y", TrustDomainCharacter { seen: '?' }),
        ("spiffe://[::1]/x", TrustDomainCharacter { seen: '[' }),
        ("spiffe://td", NoPath),
        ("spiffe://td/", NoPath),
        ("spiffe://td/x/", EmptySegment),
        ("spiffe://td//x", EmptySegment),
        ("spiffe://td/./x", DotSegment),
        ("spiffe://td/x/..", DotSegment),
        ("spiffe://td/%2e%2e/x", PathCharacter { seen: '%' }),
        ("spiffe://td/x?y", PathCharacter { seen: '?' }),
        ("spiffe://td/x#y", PathCharacter { seen: '#' }),
        ("spiffe://td/x\0", PathCharacter { seen: '\0' }),
        ("spiffe://td/x\n", PathCharacter { seen: '\n' }),
        ("spiffe://td/x y", PathCharacter { seen: ' ' }),
        ("spiffe://td/ns*/sa", PathCharacter { seen: '*' }),
        ("spiffe://td/é", PathCharacter { seen: 'é' }),
    ] {
        assert_eq!(SpiffeId::parse(text), Err(why), "{text:?}");
    }
}

#[test]
fn overlong_names_are_refused() {
    let id = format!("spiffe://td/{}", "p".repeat(MAX_ID_BYTES - 11));
    assert_eq!(SpiffeId::parse(&id), Err(IdError::TooLong { bytes: MAX_ID_BYTES + 1 }));
    let domain = "d".repeat(256);
    assert_eq!(TrustDomain::parse(&domain), Err(IdError::TrustDomainTooLong { bytes: 256 }));
    assert!(SpiffeId::parse(&format!("spiffe://{domain}/x")).is_err());
}

#[test]
fn names_are_compared_whole() {
    let id = |text| SpiffeId::parse(text).unwrap();
    assert_ne!(id("spiffe://td/ns/n/sa/a.b"), id("spiffe://td/ns/n/sa/aXb"));
    assert_ne!(id("spiffe://td/ns/n/sa/web"), id("spiffe://td/ns/n/sa/web2"));
    assert_ne!(id("spiffe://td/ns/n/sa/web"), id("spiffe://td/ns/n/sa/Web"));
    assert_eq!(id("spiffe://td/ns/n/sa/web"), id("spiffe://td/ns/n/sa/web"));
}

#[test]
fn workload_parts_are_read_from_exactly_one_form() {
    let domain = TrustDomain::parse("td").unwrap();
    let web = SpiffeId::workload(&domain, "shop", "web").unwrap();
    assert_eq!(web.as_str(), "spiffe://td/ns/shop/sa/web");
    assert_eq!((web.namespace(), web.service_account()), (Some("shop"), Some("web")));
    assert_eq!((web.trust_domain(), web.path()), (&domain, "/ns/shop/sa/web"));
    for other in ["ns/shop/sa", "ns/shop/sa/web/x", "ns/shop/as/web", "x/ns/shop/sa/web", "shop"] {
        let id = SpiffeId::parse(&format!("spiffe://td/{other}")).unwrap();
        assert_eq!((id.namespace(), id.service_account()), (None, None), "{other}");
    }
    assert_eq!(
        SpiffeId::workload(&domain, "a/sa/b", "c"),
        Err(IdError::PathCharacter { seen: '/' })
    );
    assert_eq!(SpiffeId::workload(&domain, "", "c"), Err(IdError::EmptySegment));
}

#[test]
fn reserved_path_is_recognised_whole() {
    let domain = TrustDomain::parse("td").unwrap();
    assert_eq!(SpiffeId::ca(&domain), SpiffeId::parse("spiffe://td/myelin/ca").unwrap());
    for (path, reserved) in [
        ("myelin", true),
        ("myelin/ca", true),
        ("myelin/x/y", true),
        ("myelin2", false),
        ("ns/myelin/sa/ca", false),
        ("Myelin/ca", false),
    ] {
        let id = SpiffeId::parse(&format!("spiffe://td/{path}")).unwrap();
        assert_eq!(id.is_reserved(), reserved, "{path}");
    }
}

proptest! {
    #[test]
    fn accepted_ids_round_trip(
        domain in "[a-z0-9._-]{1,40}",
        segments in proptest::collection::vec("[A-Za-z0-9_-][A-Za-z0-9._-]{0,12}", 1..6),
    ) {
        let text = format!("spiffe://{domain}/{}", segments.join("/"));
        let id = SpiffeId::parse(&text).unwrap();
        prop_assert_eq!(id.to_string(), text);
        prop_assert_eq!(id.trust_domain().as_str(), domain);
        prop_assert_eq!(id.path(), format!("/{}", segments.join("/")));
        prop_assert_eq!(SpiffeId::parse(id.as_str()).unwrap(), id);
    }

    #[test]
    fn arbitrary_text_never_panics_and_is_kept_verbatim(text in ".{0,80}") {
        if let Ok(id) = SpiffeId::parse(&format!("spiffe://{text}")) {
            prop_assert_eq!(id.as_str(), format!("spiffe://{text}"));
            prop_assert!(id.as_str().bytes().all(|b| b.is_ascii_graphic()));
        }
    }
}
