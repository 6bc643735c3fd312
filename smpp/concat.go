package smpp

// Concat says which part of a longer message this is (3GPP TS 23.040 §9.2.3.24.1 and §9.2.3.24.8).
type Concat struct {
	Ref   uint16 // the same in every part; only the low octet unless Wide
	Wide  bool   // a 16 bit reference
	Total byte   // parts in all, 1–255
	Seq   byte   // this part, from 1
}

// Append adds a user data header with only this element in it: 6 octets, or 7 with a wide reference.
func (c Concat) Append(dst []byte) []byte {
	if c.Wide {
		return append(dst, 6, 0x08, 4, byte(c.Ref>>8), byte(c.Ref), c.Total, c.Seq)
	}
	return append(dst, 5, 0x00, 3, byte(c.Ref), c.Total, c.Seq)
}

// SplitUDH divides the user data of a message whose esm_class has ESMUDHI into the header's concatenation element and
// the text. found is false when the header has no such element, or one that makes no sense, which counts as absent (TS
// 23.040 §9.2.3.24.1). The error is a *FieldError with ErrShort when the header is longer than the data.
func SplitUDH(b []byte) (c Concat, found bool, text []byte, err error) {
	if len(b) == 0 || int(b[0]) >= len(b) {
		return Concat{}, false, nil, &FieldError{Field: "user data header", Err: ErrShort}
	}
	udh, text := b[1:1+int(b[0])], b[1+int(b[0]):]
	for len(udh) >= 2 {
		id, n := udh[0], int(udh[1])
		if len(udh)-2 < n {
			return Concat{}, false, nil, &FieldError{Field: "user data header", Err: ErrShort}
		}
		v := udh[2 : 2+n]
		switch {
		case id == 0x00 && n == 3:
			c = Concat{Ref: uint16(v[0]), Total: v[1], Seq: v[2]}
		case id == 0x08 && n == 4:
			c = Concat{Ref: uint16(v[0])<<8 | uint16(v[1]), Wide: true, Total: v[2], Seq: v[3]}
		}
		udh = udh[2+n:]
	}
	return c, c.valid(), text, nil
}

func (c Concat) valid() bool { return c.Seq >= 1 && c.Seq <= c.Total }

// Part returns which part of a longer message m is, and its user data without the header. It reads the user data header
// and, where there is none, the parameters sar_msg_ref_num, sar_total_segments and sar_segment_seqnum (§5.3.2.22–24).
func (m *Message) Part() (c Concat, found bool, text []byte, err error) {
	text = m.Payload()
	if m.ESMClass&ESMUDHI != 0 {
		return SplitUDH(text)
	}
	ref, _ := m.Optional.Get(TagSARMsgRefNum)
	total, _ := m.Optional.Octet(TagSARTotalSegments)
	seq, _ := m.Optional.Octet(TagSARSegmentSeqnum)
	if len(ref) == 2 {
		c = Concat{Ref: uint16(ref[0])<<8 | uint16(ref[1]), Wide: true, Total: total, Seq: seq}
	}
	return c, c.valid(), text, nil
}
