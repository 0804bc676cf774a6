//! Elements of ASN.1, entered as deep as may be.
#![no_main]

use probe::ber::Ber;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut places = vec![Ber::new(bytes)];
    let mut elements = 0;
    while let Some(mut place) = places.pop() {
        while let Ok(element) = place.any("element") {
            elements += 1;
            let _ = (element.text("t"), element.time("t"), element.bits("b"));
            if let Ok(oid) = element.oid("o") {
                assert_eq!(oid.to_string().parse().ok(), Some(oid));
            }
            if let Ok(mut inside) = element.enter("inside") {
                if let Ok(name) = inside.clone().name("name") {
                    let _ = name.to_string();
                }
                let _ = inside.integer("number");
                places.push(inside);
            }
        }
    }
    // Each takes two bytes of its own.
    assert!(elements <= bytes.len());
});
