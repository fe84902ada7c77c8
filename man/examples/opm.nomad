# One group of several services in a container whose PID 1 is opm.
job "shop" {
  datacenters = ["*"]
  group "shop" {
    count = 2
    network {
      port "http" { to = 3000 }
    }
    task "shop" {
      driver = "docker"
      config {
        image      = "registry.example/shop:1"
        entrypoint = ["/usr/local/bin/opm"]
        args       = ["run", "--prefix", "json", "--stop-timeout", "25s", "/etc/opm.json"]
        ports      = ["http"]
        readonly_rootfs = true
        mount {
          type   = "tmpfs"
          target = "/run"
        }
      }
      env {
        OPM_HOME = "/run/opm"
      }
      # Longer than --stop-timeout.
      kill_timeout = "30s"
      service {
        name     = "shop"
        port     = "http"
        provider = "nomad"
        check {
          type     = "http"
          path     = "/"
          interval = "10s"
          timeout  = "3s"
        }
      }
    }
  }
}
