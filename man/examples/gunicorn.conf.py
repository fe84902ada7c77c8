"""gunicorn as a service of opm: opm start --listen 8000 -- gunicorn -c gunicorn.conf.py app:app

A worker that still boots would drop TERM, serve on, and be killed with a request in its hands
when gunicorn's graceful_timeout is over. Here TERM waits until the worker listens to it.
"""

from signal import SIG_BLOCK, SIG_UNBLOCK, SIGTERM, pthread_sigmask


def on_starting(server):
    spawn = server.spawn_worker

    def held():
        pthread_sigmask(SIG_BLOCK, [SIGTERM])
        try:
            return spawn()
        finally:
            pthread_sigmask(SIG_UNBLOCK, [SIGTERM])

    server.spawn_worker = held


def post_worker_init(worker):
    pthread_sigmask(SIG_UNBLOCK, [SIGTERM])
