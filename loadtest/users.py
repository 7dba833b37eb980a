"""The users: each sends requests of all kinds, one after the other, and checks each answer."""

import time

from gevent import GreenletExit
from locust import User, tag, task
from locust.exception import StopUser
from transports import GrpcTransport, HttpTransport


class RamUser(User):
    """Sends what the tasks say; the weights are those of ordinary traffic.

    In the closed loop a user sends its next request when it has its answer. In the open loop it
    takes the next that is due, and the latency counts from then.
    """

    abstract = True

    def on_start(self) -> None:
        """Connect. Locust would log a StopUser that is raised here: the first task waits."""
        self.session = self.environment.ram.session
        self.due: float | None = None
        if self.session is not None:
            self.transport = self.connect(self.environment)

    def on_stop(self) -> None:
        """Disconnect."""
        if self.session is not None:
            self.transport.close()

    def connect(self, environment) -> GrpcTransport | HttpTransport:
        """Return how requests are sent."""
        raise NotImplementedError

    def wait_time(self) -> float:
        """Wait until a request is due: in the closed loop that is now."""
        if self.session.arrivals:
            self.due = self.session.arrivals.next()
        elif self.session.finished:
            raise StopUser
        else:
            self.due = time.perf_counter()
        return 0

    @tag("plain")
    @task(50)
    def plain(self) -> None:
        """One image, and nothing else."""
        self.send("plain")

    @tag("threshold")
    @task(10)
    def threshold(self) -> None:
        """One image, and a threshold for all tags."""
        self.send("threshold")

    @tag("top_k")
    @task(10)
    def top_k(self) -> None:
        """One image, of which the best tags are wanted."""
        self.send("top_k")

    @tag("open")
    @task(10)
    def open(self) -> None:
        """One image, and the tags to look for; a plain request where these are not served."""
        self.send("open")

    @tag("batch")
    @task(10)
    def batch(self) -> None:
        """Several images in one request."""
        self.send("batch")

    @tag("broken")
    @task(10)
    def broken(self) -> None:
        """One broken image, whose proper answer is an error."""
        self.send("broken")

    def send(self, name: str) -> None:
        """Send a request, and report its latency and whether its answer is right."""
        session = self.session
        if session is None:
            raise StopUser
        if self.due is None:
            self.wait()
        session.first = session.first or self.due
        request = session.traffic.request(name)
        kind = request.kind
        session.in_flight += 1
        try:
            try:
                images = [picture.data for picture in request.pictures]
                answer = self.transport.tag(images, kind.settings, kind.labels)
            except GreenletExit:
                raise
            except Exception as error:
                answer = error
            session.last = time.perf_counter()
            latency = session.last - self.due
            self.environment.events.request.fire(
                request_type=self.transport.name,
                name=kind.label,
                response_time=1000 * latency,
                response_length=0,
                exception=session.expected.fault(request, answer),
                context=self.context(),
            )
        finally:
            session.in_flight -= 1


class GrpcUser(RamUser):
    """Uses gRPC, through the project's Python client."""

    weight = 3

    def connect(self, environment) -> GrpcTransport:
        """Return a connection to --grpc-server."""
        options = environment.parsed_options
        return GrpcTransport(options.grpc_server, options.timeout)


class HttpUser(RamUser):
    """Uses HTTP, through Triton's Python client."""

    weight = 1

    def connect(self, environment) -> HttpTransport:
        """Return a connection to --host."""
        return HttpTransport(environment.host, environment.parsed_options.timeout)
