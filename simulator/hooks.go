package simulator

import "net/http"

func (s *Sim) hookRoutes(*http.ServeMux) {}
