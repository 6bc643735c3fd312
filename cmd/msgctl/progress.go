package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/msgctl/msgctl/sdk"
)

// campaignProgress shows how far a campaign is: a bar on a terminal, else a line per 10 %.
type campaignProgress struct {
	a     *app
	bars  *mpb.Progress
	bar   *mpb.Bar
	begin time.Time
	first int // done when it began, so that the rate is of what was seen
	tenth int

	mu   sync.Mutex
	text string
}

func (a *app) progress() *campaignProgress { return &campaignProgress{a: a, tenth: -1} }

// done is how many people need nothing more from the engine than receipts.
func done(r *sdk.CampaignReport) int { return max(r.People-r.ToExpand-r.Waiting, 0) }

func (p *campaignProgress) show(r *sdk.CampaignReport) {
	if p.a.flags.quiet {
		return
	}
	n := done(r)
	if p.begin.IsZero() {
		p.begin, p.first = p.a.now(), n
	}
	if !p.a.errTTY {
		p.line(r, n)
		return
	}
	p.mu.Lock()
	p.text = p.status(r, n)
	p.mu.Unlock()
	if p.bar == nil {
		p.start(int64(max(r.People, 1)))
	}
	p.bar.SetCurrent(int64(n))
}

func (p *campaignProgress) start(total int64) {
	p.bars = mpb.New(
		mpb.WithOutput(p.a.err), mpb.WithWidth(22), mpb.WithAutoRefresh(), mpb.WithRefreshRate(200*time.Millisecond))
	p.bar = p.bars.New(total, mpb.BarStyle().Lbound("▕").Filler("█").Tip("▌").Padding(" ").Rbound("▏"),
		mpb.BarFillerClearOnComplete(),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.text
		})))
}

// status is "71%  6,850/9,641  199/s  delivered 6,702  failed 31  waiting 117  14 s left".
func (p *campaignProgress) status(r *sdk.CampaignReport, n int) string {
	s := fmt.Sprintf(" %d%%  %s/%s", percent(n, r.People), thousands(n), thousands(r.People))
	took := p.a.now().Sub(p.begin).Seconds()
	rate := 0.0
	if took > 0 {
		rate = float64(n-p.first) / took
	}
	if rate > 0 {
		s += "  " + perSecondText(rate)
	}
	delivered, failed := r.ByStatus[sdk.Delivered]+r.ByStatus[sdk.Read], r.ByStatus[sdk.Failed]+r.ByStatus[sdk.Undelivered]
	s += fmt.Sprintf("  delivered %s  failed %s  waiting %s", thousands(delivered), thousands(failed), thousands(r.Waiting))
	if left := r.People - n; rate > 0 && left > 0 && r.State == "running" {
		s += "  " + span(float64(left)/rate) + " left"
	}
	return s
}

// perSecondText writes a rate with as many digits as mean something.
func perSecondText(rate float64) string {
	if rate < 10 {
		return fmt.Sprintf("%.1f/s", rate)
	}
	return fmt.Sprintf("%.0f/s", rate)
}

func percent(n, of int) int {
	if of <= 0 {
		return 100
	}
	return n * 100 / of
}

func (p *campaignProgress) line(r *sdk.CampaignReport, n int) {
	if tenth := percent(n, r.People) / 10; tenth > p.tenth {
		p.tenth = tenth
		p.a.say("%s", r.Campaign+p.status(r, n))
	}
}

// note says something beside the progress.
func (p *campaignProgress) note(s string) {
	if p.bars != nil {
		_, _ = fmt.Fprintln(p.bars, s)
		return
	}
	p.a.say("%s", s)
}

// close takes the bar away. Safe twice.
func (p *campaignProgress) close() {
	if p.bars == nil {
		return
	}
	p.bar.Abort(true)
	p.bars.Wait()
	p.bars, p.bar = nil, nil
}

// bulkProgress shows how much of a long list is done: a bar on a terminal, else a line per 10 %, or per 10,000 where the
// end is not known.
type bulkProgress struct {
	a           *app
	name        string
	total, told int
	bars        *mpb.Progress
	bar         *mpb.Bar
}

// bulkProgress begins to show. What fits into one batch has no progress; a total of 0 is not known.
func (a *app) bulkProgress(name string, total, batch int) *bulkProgress {
	p := &bulkProgress{a: a, name: name, total: total}
	if a.flags.quiet || total > 0 && total <= batch {
		p.total = -1
	}
	if p.total > 0 && a.errTTY {
		p.bars = mpb.New(mpb.WithOutput(a.err), mpb.WithWidth(22), mpb.WithAutoRefresh())
		p.bar = p.bars.New(int64(total), mpb.BarStyle().Lbound("▕").Filler("█").Tip("▌").Padding(" ").Rbound("▏"),
			mpb.PrependDecorators(decor.Name(clean(name)+" ")),
			mpb.AppendDecorators(decor.CountersNoUnit(" %d/%d")))
	}
	return p
}

// show says that n are done.
func (p *bulkProgress) show(n int) {
	switch {
	case p.total < 0:
	case p.bar != nil:
		p.bar.SetCurrent(int64(n))
	case p.total == 0:
		if n/10_000 > p.told {
			p.told = n / 10_000
			p.a.say("%s", fmt.Sprintf("%s: %s so far", p.name, thousands(n)))
		}
	default:
		if tenth := percent(n, p.total) / 10; tenth > p.told {
			p.told = tenth
			p.a.say("%s", fmt.Sprintf("%s: %d%%  %s/%s", p.name, percent(n, p.total), thousands(n), thousands(p.total)))
		}
	}
}

// close takes the bar away. Safe twice.
func (p *bulkProgress) close() {
	if p.bars == nil {
		return
	}
	p.bar.Abort(true)
	p.bars.Wait()
	p.bars, p.bar = nil, nil
}

// byteProgress shows how much of a stream was read, on a terminal.
func (a *app) byteProgress(r io.Reader, total int64, name string) (io.Reader, func()) {
	if !a.errTTY || a.flags.quiet || total <= 0 {
		return r, func() {}
	}
	bars := mpb.New(mpb.WithOutput(a.err), mpb.WithWidth(22), mpb.WithAutoRefresh())
	bar := bars.New(total, mpb.BarStyle().Lbound("▕").Filler("█").Tip("▌").Padding(" ").Rbound("▏"),
		mpb.PrependDecorators(decor.Name(clean(name)+" ")),
		mpb.AppendDecorators(decor.CountersKibiByte(" % .1f / % .1f")))
	return bar.ProxyReader(r), func() {
		bar.Abort(true)
		bars.Wait()
	}
}
